"""`omni cloud`: other machines, over the system's ssh and rsync."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from omninervous.cli.options import FileName
from omninervous.errors import UserError
from omninervous.ganglion.options import DEFAULT_PORT, parse_port, read_secret_file

__all__ = ["cloud"]

F = TypeVar("F", bound=Callable[..., Any])

_HOST = "[USER@]HOST[:/DIR]"


@click.group(context_settings={"help_option_names": ["--help", "-h"]})
def cloud() -> None:
    """Install, test and stop OmniNervous on other machines, by ssh.

    ssh must let you in without a question (a key, an agent); your ~/.ssh/config, agents and jump hosts hold. The other
    machine needs Python 3.11 or newer and rsync; for a test the edges need iperf3, ping, and root or sudo without a
    password, too. The rest is copied to DIR [default: ~/.omninervous].
    """


def ssh_option(function: F) -> F:
    """`--ssh-config`."""
    return click.option(
        "--ssh-config",
        type=FileName(exists=True, dir_okay=False),
        help="Configuration of ssh. [default: ~/.ssh/config]",
    )(function)


def dist_option(function: F) -> F:
    """`--dist`."""
    return click.option(
        "--dist",
        type=FileName(),
        default=Path("dist"),
        show_default=True,
        help="What `make wheel` has made: this is installed.",
    )(function)


@cloud.command()
@click.option("--nucleus", required=True, metavar=_HOST, help="Machine of the Nucleus.")
@click.option("--node-a", required=True, metavar=_HOST, help="Machine of the first edge.")
@click.option("--node-b", required=True, metavar=_HOST, help="Machine of the second edge.")
@click.option(
    "--secret", metavar="TEXT", help="The test cluster's secret. Prefer --secret-file. [default: a fresh one]"
)
@click.option("--secret-file", metavar="FILE", help="File that holds the secret. Else OMNI_SECRET is used, if set.")
@click.option("--port", metavar="PORT", default=str(DEFAULT_PORT), show_default=True, help="UDP port on all three.")
@click.option(
    "--seconds", type=click.IntRange(1, 600), default=3, show_default=True, help="Length of each iperf3 measurement."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout; progress on stderr.")
@dist_option
@ssh_option
def test(
    nucleus: str,
    node_a: str,
    node_b: str,
    secret: str | None,
    secret_file: str | None,
    port: str,
    seconds: int,
    as_json: bool,
    dist: Path,
    ssh_config: Path | None,
) -> int:
    """A Nucleus and two edges on three machines: bare path, handshake, tunnel; then all is stopped."""
    from rich.console import Console

    from omninervous.lab.cloud import CloudOptions, run_cloud_test
    from omninervous.lab.cloud_hosts import SshOptions, parse_host
    from omninervous.lab.console import ConsoleProgress
    from omninervous.lab.tables import report_table

    options = CloudOptions(
        nucleus=parse_host(nucleus, "--nucleus"),
        node_a=parse_host(node_a, "--node-a"),
        node_b=parse_host(node_b, "--node-b"),
        dist=dist,
        ssh=SshOptions(ssh_config),
        secret=_secret(secret, secret_file),
        port=parse_port(port),
        seconds=seconds,
    )
    report = run_cloud_test(options, ConsoleProgress())
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        Console().print(report_table(report, "cloud test"))
    return 0 if report.ok else 1


@cloud.command()
@click.argument("machine", metavar=_HOST)
@click.option("--port", metavar="PORT", default=str(DEFAULT_PORT), show_default=True, help="UDP port.")
@dist_option
@ssh_option
def nucleus(machine: str, port: str, dist: Path, ssh_config: Path | None) -> None:
    """Install a Nucleus on a machine and start it, or start it anew with what is in --dist. It keeps its identity."""
    from omninervous.lab.cloud import run_cloud_nucleus
    from omninervous.lab.cloud_hosts import SshOptions, parse_host
    from omninervous.lab.console import ConsoleProgress

    spec = parse_host(machine, "machine")
    place, log = run_cloud_nucleus(spec, dist, SshOptions(ssh_config), parse_port(port), ConsoleProgress())
    click.echo(f"omni-daemon --nucleus '{place}' --cluster NAME --secret-file FILE")
    click.echo(f"its log: {log} on {spec.destination}; to end it: omni cloud stop {machine}", err=True)


@cloud.command()
@click.argument("machine", metavar=_HOST)
@click.option("--tree", type=FileName(), default=Path(), help="The source tree. [default: this directory]")
@ssh_option
def sync(machine: str, tree: Path, ssh_config: Path | None) -> None:
    """Copy a source tree to a machine by rsync, without what make makes. [default DIR: ~/omninervous]"""
    from omninervous.lab.cloud import run_cloud_sync
    from omninervous.lab.cloud_hosts import SshOptions, parse_host

    spec = parse_host(machine, "machine")
    directory = run_cloud_sync(spec, tree, SshOptions(ssh_config))
    click.echo(f"{tree.resolve()} is in {directory} on {spec.destination}; there: make setup")


@cloud.command()
@click.argument("machines", metavar=f"{_HOST}...", nargs=-1, required=True)
@ssh_option
def stop(machines: tuple[str, ...], ssh_config: Path | None) -> None:
    """End all that `omni cloud` has started on these machines."""
    from omninervous.lab.cloud import run_cloud_stop
    from omninervous.lab.cloud_hosts import SshOptions, parse_host

    specs = tuple(parse_host(each, "machine") for each in machines)
    for ended in run_cloud_stop(specs, SshOptions(ssh_config)):
        click.echo(f"ended {ended}")


def _secret(secret: str | None, secret_file: str | None) -> str | None:
    from omninervous.ganglion.config import SECRET_VARIABLE

    if secret is not None and secret_file is not None:
        raise UserError("--secret and --secret-file exclude each other: keep --secret-file")
    if secret_file is not None:
        return read_secret_file(secret_file)
    return secret if secret is not None else os.environ.get(SECRET_VARIABLE)
