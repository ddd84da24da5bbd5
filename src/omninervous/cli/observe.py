"""`omni events`, `omni doctor`, `omni bundle`: what happened, what is wrong, and all of it in one file."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rich_click as click

from omninervous.cli.options import FileName, chosen_state_dir, json_option, print_json, state_dir_option

__all__ = ["bundle", "config_option", "doctor", "events"]

config_option = click.option(
    "--config", metavar="FILE", help="What a daemon would be started with. [default: as omni-daemon's]"
)
_WAIT = 20
"""Seconds that the daemon holds a request for news."""


@click.command()
@state_dir_option
@click.option("--follow", "-f", is_flag=True, help="Wait for more, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def events(ctx: click.Context, follow: bool, as_json: bool) -> None:
    """Handshakes, paths, refusals and problems of this daemon, the newest last (it keeps 1024)."""
    from omninervous.hostos.control import request

    state_dir, after = chosen_state_dir(ctx), 0
    while True:
        answer = request(state_dir, "events", timeout=_WAIT + 10, after=after, wait=_WAIT if follow and after else 0)
        if answer["lost"]:
            click.echo(f"{answer['lost']} older events are forgotten", err=True)
        for event in answer["events"]:
            click.echo(json.dumps(event) if as_json else _sentence(event))
        sys.stdout.flush()
        more = bool(answer["events"])
        # Before the first event there is no number to wait behind; 1 is never the last one then.
        after = answer["last"]
        if not more and not follow:
            return
        if not more and not after:
            time.sleep(1.0)


def _sentence(event: dict[str, Any]) -> str:
    known = ("number", "time", "level", "event")
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time"]))
    fields = "  ".join(f"{name} {value}" for name, value in event.items() if name not in known)
    return f"{when}  {event['level']:7}  {event['event']}  {fields}".rstrip()


# ---------------------------------------------------------------- doctor


@click.command()
@state_dir_option
@config_option
@json_option
@click.pass_context
def doctor(ctx: click.Context, config: str | None, as_json: bool) -> int:
    """What is wrong on this machine, each line with a remedy. Exit status 1 if something is."""
    from omninervous.cli.diagnose import diagnose

    found = diagnose(chosen_state_dir(ctx), config)
    well = all(each.state != "fault" for each in found)
    if as_json:
        print_json({"ok": well, "findings": [asdict(each) for each in found]})
    else:
        from omninervous.cli.tables import show_findings

        show_findings(found)
    return 0 if well else 1


# ---------------------------------------------------------------- bundle


@click.command()
@state_dir_option
@config_option
@click.argument("file", required=False, type=FileName())
@click.pass_context
def bundle(ctx: click.Context, config: str | None, file: Path | None) -> None:
    """Status, events, doctor, configuration and network of this machine in one archive; no secret is in it."""
    from omninervous.cli.bundle import default_name, write_bundle

    target = file or default_name()
    write_bundle(target, chosen_state_dir(ctx), config)
    click.echo(target)
