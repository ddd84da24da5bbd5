"""`omni config`: checks, shows and explains the configuration; `omni reload` has a daemon read it again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from omninervous.cli.options import FileName, chosen_state_dir, json_option, print_json, state_dir_option
from omninervous.errors import UserError
from omninervous.hostos.state import CONFIG_VARIABLE, default_config_path

if TYPE_CHECKING:
    from omninervous.cli.layers import Layers
    from omninervous.cli.settings import Setting

__all__ = ["config", "described_settings", "reload"]

HIDDEN = "***"
config_option = click.option(
    "--config", "path", metavar="FILE", help="The configuration file. [default: as omni-daemon's]"
)


@click.group()
def config() -> None:
    """The configuration file: check it, show what holds, print an example."""


@config.command()
@click.argument("file", required=False, type=FileName())
@json_option
def check(file: Path | None, as_json: bool) -> int:
    """Every fault of a file, with its line, of OMNI_* variables, and variables that look like mistyped ones. Without a
    file the variables alone. Exit status 2 if there is one."""
    from omninervous.cli.config_file import ConfigFile, Fault, read_config
    from omninervous.cli.layers import NO_SETTING, foreign

    path = file or _usual_file()
    found = ConfigFile(Path("environment")) if path is None else read_config(path)
    strange = foreign()
    ours = {name: value for name, value in os.environ.items() if name not in [each.name for each in strange]}
    faults = list(found.faults)
    if not faults and (misfit := _misfit(path, ours)):
        faults = [Fault(0, "", "", misfit)]
    notes = [*found.notes, *(each.sentence for each in strange if not each.meant)]
    slips = [each for each in strange if each.meant]
    if as_json:
        listed = [*faults, *(Fault(0, each.name, "", NO_SETTING, each.meant) for each in slips)]
        print_json(
            {
                "file": None if path is None else str(path),
                "ok": not listed,
                "faults": [asdict(each) for each in listed],
                "notes": notes,
            }
        )
        return 2 if listed else 0
    sentences = [*(each.sentence(found.path) for each in faults), *(each.sentence for each in slips)]
    for sentence in (*sentences, *(f"note: {note}" for note in notes)):
        click.echo(sentence)
    if not sentences:
        click.echo(f"no {default_config_path()}; environment: all is well" if path is None else f"{path}: all is well")
    return 2 if sentences else 0


def _usual_file() -> Path | None:
    """The file that omni-daemon would read; None if there is none."""
    named = os.environ.get(CONFIG_VARIABLE)
    default = default_config_path()
    return Path(named) if named else default if default.exists() else None


def _misfit(path: Path | None, environ: Mapping[str, str]) -> str:
    """What is wrong with variables, and what only all values together can show, as omni-daemon would say it here; empty
    if all is well."""
    from omninervous.cli.daemon_command import edge_config
    from omninervous.cli.layers import gather

    try:
        layers = gather({}, (), None if path is None else str(path), environ)
        if layers.value("mode") == "edge":
            edge_config(layers)
    except UserError as error:
        return str(error)
    return ""


@config.command()
@config_option
@json_option
def show(path: str | None, as_json: bool) -> None:
    """What holds for a daemon that is started with this file and this environment, and who says so."""
    from omninervous.cli.layers import gather
    from omninervous.cli.tables import show_settings

    described = described_settings(gather({}, (), path))
    if as_json:
        print_json(described)
    else:
        show_settings(described)


def described_settings(layers: Layers) -> dict[str, Any]:
    """The object of `omni config show --json`: what holds and who says so; no secret."""
    from omninervous.cli.settings import PEER_SETTINGS, SETTINGS

    keys = [each.key for each in PEER_SETTINGS]
    peers = [{key: getattr(peer, key) for key in keys if getattr(peer, key)} for peer in layers.peers]
    rows = [_row(layers, each) for each in SETTINGS]
    return {"settings": rows, "peers": peers, "peers_origin": layers.peers_origin or "default"}


def _row(layers: Layers, setting: Setting) -> dict[str, Any]:
    value = layers.value(setting.option)
    if setting.secret and value is not None:
        value = HIDDEN
    return {
        "key": setting.path,
        "value": list(value) if isinstance(value, tuple) else value,
        "origin": layers.origin(setting.option),
        "flag": setting.flag,
        "variable": setting.variable,
        "live": setting.live,
    }


@config.command()
def example() -> None:
    """A commented file with every key."""
    from omninervous.cli.config_forms import example_file

    click.echo(example_file(), nl=False)


@config.command()
def schema() -> None:
    """The JSON Schema of the file, for editors."""
    from omninervous.cli.config_forms import json_schema

    print_json(json_schema())


@click.command()
@state_dir_option
@json_option
@click.pass_context
def reload(ctx: click.Context, as_json: bool) -> None:
    """Have the daemon read its configuration again; no session is dropped."""
    from omninervous.cli.settings import PEER_SETTINGS, SETTINGS
    from omninervous.hostos.control import request

    answer = request(chosen_state_dir(ctx), "reload")
    if as_json:
        print_json(answer)
        return
    names = {each.option: each.path for each in (*SETTINGS, *PEER_SETTINGS)}
    for title, key in (("applied", "applied"), ("waits for a new start", "needs_restart")):
        changed = [names[name] for name in answer[key]]
        click.echo(f"{title}: {', '.join(changed) or 'nothing'}")
