"""`omni`: looks at the daemon of this machine, tests and measures."""

from __future__ import annotations

import sys
from pathlib import Path

import rich_click as click

import omninervous
from omninervous.cli import config as config_commands
from omninervous.cli import observe
from omninervous.cli import paths as path_commands
from omninervous.cli.cloud import cloud
from omninervous.cli.options import FileName, chosen_state_dir, engine_option, json_option, print_json, state_dir_option
from omninervous.cli.pcap import pcap
from omninervous.cli.run import run as run_command
from omninervous.cli.service import service
from omninervous.hostos.process import hide_arguments

__all__ = ["main", "omni"]


def main() -> None:
    """The console script. A secret leaves the process title at once."""
    hide_arguments(("--secret",))
    sys.exit(run_command(omni, "omni"))


@click.group(context_settings={"help_option_names": ["--help", "-h"]})
@state_dir_option
@click.option("--verbose", "-v", is_flag=True, expose_value=False, help="Tracebacks of internal errors.")
@click.version_option(omninervous.__version__, "--version", message="omni %(version)s")
@click.command_panel(
    "This machine", commands=["status", "peers", "fdb", "identity", "events", "pcap", "doctor", "bundle"]
)
@click.command_panel("Paths", commands=["ping", "why", "netcheck"])
@click.command_panel("Configuration", commands=["config", "reload", "service"])
@click.command_panel("Trials", commands=["autotest", "bench", "lab"])
@click.command_panel("Other machines", commands=["cloud"])
def omni() -> None:
    """Look at the OmniNervous daemon of this machine, test and measure."""


omni.add_command(config_commands.config)
omni.add_command(config_commands.reload)
omni.add_command(path_commands.ping)
omni.add_command(path_commands.why)
omni.add_command(path_commands.netcheck)
omni.add_command(observe.events)
omni.add_command(pcap)
omni.add_command(observe.doctor)
omni.add_command(observe.bundle)


# ---------------------------------------------------------------- this machine


@omni.command()
@state_dir_option
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Address, Nuclei, counters, drops, problems."""
    _show(ctx, "status", as_json, "status")


@omni.command()
@state_dir_option
@json_option
@click.pass_context
def peers(ctx: click.Context, as_json: bool) -> None:
    """Peers: address, endpoint, session, traffic."""
    _show(ctx, "peers", as_json, "peers")


@omni.command()
@state_dir_option
@json_option
@click.pass_context
def fdb(ctx: click.Context, as_json: bool) -> None:
    """Which MAC address is behind which peer."""
    _show(ctx, "fdb", as_json, "status")


@omni.command()
@state_dir_option
@json_option
@click.pass_context
def identity(ctx: click.Context, as_json: bool) -> None:
    """Key, WireGuard form, MAC, ULA and derived address. Needs no daemon."""
    from omninervous.cli.identity import describe_identity

    described = describe_identity(chosen_state_dir(ctx))
    if as_json:
        print_json(described)
    else:
        from omninervous.cli import tables

        tables.show_identity(described)


def _show(ctx: click.Context, what: str, as_json: bool, command: str) -> None:
    from omninervous.hostos.control import request

    answer = request(chosen_state_dir(ctx), command)
    if what == "fdb":
        answer = {"fdb": answer.get("fdb", [])}
    if as_json:
        print_json(answer)
        return
    from omninervous.cli import tables

    tables.SHOW[what](answer)


# ---------------------------------------------------------------- trials


@omni.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout; progress on stderr.")
@click.option("--keep", is_flag=True, help="Leave machines and daemons running; the next run removes them.")
@click.option(
    "--seconds", type=click.IntRange(1, 600), default=3, show_default=True, help="Length of each iperf3 measurement."
)
@click.option("--break", "break_row", metavar="FAULT", help="Make this fault on purpose: its row must fail.")
@click.option("--logs", type=FileName(), help="Directory for logs and captures, also if all goes well.")
@engine_option
def autotest(as_json: bool, keep: bool, seconds: int, break_row: str | None, logs: Path | None, engine: str) -> int:
    """Build a whole cluster on this machine, look at it from outside, take it away again. Needs root."""
    from rich.console import Console

    from omninervous.lab.autotest import AutotestOptions, run
    from omninervous.lab.tables import report_table

    options = AutotestOptions(json=as_json, keep=keep, seconds=seconds, break_row=break_row, logs=logs, engine=engine)
    report = run(options)
    if as_json:
        print_json(report.to_json())
    else:
        Console().print(report_table(report))
    if report.logs is not None:
        click.echo(f"logs: {report.logs}", err=True)
    return 0 if report.ok else 1


@omni.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout; progress on stderr.")
@click.option("--rows", metavar="NAME[,NAME]", default="", help="Measure these rows only. [default: all]")
@click.option(
    "--peers",
    metavar="NAME[,NAME]",
    default="",
    help="Contestants. [default: all but fastd, nebula, tinc and omninervous-null (no cryptography)]",
)
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True, help="Turns of each contestant.")
@click.option("--seconds", type=click.IntRange(1, 600), default=3, show_default=True, help="Length of one measurement.")
@engine_option
def bench(as_json: bool, rows: str, peers: str, rounds: int, seconds: int, engine: str) -> int:
    """Throughput and latency on this machine, beside other programs. Needs root."""
    from rich.console import Console

    from omninervous.lab.bench import BenchOptions, run
    from omninervous.lab.tables import bench_table

    report = run(BenchOptions(_names(rows), rounds, _names(peers), seconds, engine))
    if as_json:
        print_json(report.to_json())
    else:
        Console().print(bench_table(report))
    return 0 if report.ok else 1


def _names(text: str) -> tuple[str, ...]:
    """`a,b` as a tuple; empty for none."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


@omni.group()
def lab() -> None:
    """Parts of the laboratory in network namespaces."""


@lab.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def link(arguments: tuple[str, ...]) -> int:
    """Two TAPs joined by a seeded link that loses, delays, reorders, duplicates and damages frames."""
    from omninervous.lab.link import main as run_link

    return run_link(list(arguments))


@lab.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout; progress on stderr.")
@click.option("--sites", metavar="NAME[,NAME]", default="", help="Only these kinds of places. [default: all]")
@click.option(
    "--seconds", type=click.IntRange(1, 600), default=15, show_default=True, help="How long pairs that are apart try."
)
@click.option("--full", is_flag=True, help="On good and bad internets: lossy, slow, damaging, narrow, all at once.")
@click.option("--seed", type=click.IntRange(0), default=None, help="What bad internets do. [default: random]")
@engine_option
def nat(as_json: bool, sites: str, seconds: int, full: bool, seed: int | None, engine: str) -> int:
    """Every pair of NATs and firewalls: what is possible, what happened, how long it took. Needs root."""
    from rich.console import Console

    from omninervous.lab.console import ConsoleProgress
    from omninervous.lab.natlab import NatLabOptions, run
    from omninervous.lab.tables import nat_table

    report = run(NatLabOptions(_names(sites), float(seconds), engine, full, seed), ConsoleProgress())
    if as_json:
        print_json(report.to_json())
    else:
        Console().print(nat_table(report))
    return 0 if report.ok else 1


omni.add_command(cloud)
omni.add_command(service)

if __name__ == "__main__":
    main()
