"""`omni service`: the systemd units of edges and Nucleus."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from omninervous.cli.options import FileName
from omninervous.errors import UserError

__all__ = ["service"]

root_option = click.option(
    "--root",
    type=FileName(),
    default=Path("/"),
    show_default=True,
    help="Another root directory, for images.",
)

_NEXT = (
    "an edge: omni config example > /etc/omninervous/NAME.toml, chmod 600 it, edit it, then",
    "         systemctl enable --now omninervous@NAME",
    "         omni --state-dir /var/lib/omninervous/NAME status",
    "         after a change of the file: systemctl restart omninervous@NAME",
    "a Nucleus: systemctl enable --now omninervous-nucleus",
    "         omni --state-dir /var/lib/omninervous/nucleus status",
)


@click.group()
def service() -> None:
    """systemd units for edges (omninervous@NAME) and a Nucleus (omninervous-nucleus)."""


@service.command()
@root_option
@click.option("--command", metavar="PATH", help="The omni-daemon that they start. [default: the one beside this omni]")
def install(root: Path, command: str | None) -> None:
    """Write the units; says how to start them."""
    from omninervous.hostos.systemd import install_units
    from omninervous.lab.daemons import find_command

    program = Path(command or find_command("omni-daemon"))
    if command is None:
        program = program.absolute()
    if not root.is_dir():
        raise UserError(f"--root {root} is not a directory: name one")
    for path in install_units(program, root.absolute()):
        click.echo(f"wrote {path}")
    for line in _NEXT:
        click.echo(line, err=True)


@service.command()
@root_option
def remove(root: Path) -> None:
    """Take the units away; configuration and state stay."""
    from omninervous.hostos.systemd import remove_units

    removed = remove_units(root.absolute())
    for path in removed:
        click.echo(f"removed {path}")
    if not removed:
        click.echo("there were none", err=True)
