"""`omni ping`, `omni why`, `omni netcheck`: how peers are reached, and why one is not."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import rich_click as click

from omninervous.cli.options import Seconds, chosen_state_dir, json_option, print_json, state_dir_option

__all__ = ["netcheck", "ping", "why"]


@click.command()
@click.argument("peer")
@state_dir_option
@click.option("--count", "-c", type=click.IntRange(1, 1_000_000), default=4, show_default=True, help="How often.")
@click.option("--interval", "-i", type=Seconds(0.05, 3600.0), default=1.0, show_default=True, help="Seconds.")
@click.option("--until-direct", is_flag=True, help="Go on until the first answer, at most --count times.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def ping(ctx: click.Context, peer: str, count: int, interval: float, until_direct: bool, as_json: bool) -> int:
    """Ask PEER (name, virtual address or key) for a sign of life: path, lane and round-trip time of each answer."""
    from omninervous.hostos.control import request

    answered = 0
    for number in range(count):
        if number:
            time.sleep(interval)
        answer = request(chosen_state_dir(ctx), "ping", peer=peer) | {"number": number + 1}
        answered += answer["ok"]
        click.echo(json.dumps(answer) if as_json else _ping_line(answer))
        sys.stdout.flush()
        if until_direct and answer["ok"]:
            break
    return 0 if answered else 1


def _ping_line(answer: Mapping[str, Any]) -> str:
    path = answer["path"]
    if path is None:
        return f"{answer['number']}  {answer['peer']}: no answer ({answer['state']}); omni why {answer['peer']}"
    way = f"{path['endpoint']} ({path['kind']}, lane {answer['lane']})"
    return f"{answer['number']}  {answer['peer']} by {way} {path['rtt_ms']} ms"


@click.command()
@click.argument("peer")
@state_dir_option
@json_option
@click.pass_context
def why(ctx: click.Context, peer: str, as_json: bool) -> None:
    """What was tried to reach PEER, what came back, the likely cause and the remedy."""
    from omninervous.hostos.control import request

    answer = request(chosen_state_dir(ctx), "why", peer=peer)
    if as_json:
        print_json(answer)
        return
    path = answer["path"]
    where = "" if path is None else f", by {path['endpoint']} ({path['kind']})"
    click.echo(f"{answer['name'] or answer['peer'][:8]} {answer['vip'] or ''}: {answer['state']}{where}")
    for each in answer["tried"]:
        back = "nothing came back" if not each["answers"] else f"{each['answers']} answers"
        refused = f", the system says: {each['refused']}" if each["refused"] else ""
        click.echo(
            f"  {each['endpoint']}: {each['initiations']} handshakes, {each['challenges']} challenges, {back}{refused}"
        )
    click.echo(f"cause: {answer['cause']}")
    if answer["remedy"]:
        click.echo(f"remedy: {answer['remedy']}")


@click.command()
@state_dir_option
@json_option
@click.pass_context
def netcheck(ctx: click.Context, as_json: bool) -> None:
    """What others see of this machine: addresses, NAT mapping, filtering and hairpin (RFC 4787), IPv6, open ports, and
    every Nucleus's round-trip time. Filtering takes two Nuclei with different addresses."""
    from omninervous.hostos.control import request

    answer = request(chosen_state_dir(ctx), "netcheck")
    if as_json:
        print_json(answer)
        return
    click.echo(f"own addresses: {', '.join(answer['addresses']) or 'none'}")
    for family in ("ipv4", "ipv6"):
        facts = answer[family]
        click.echo(f"{family}: {_family_line(facts) if facts['usable'] else 'not in use'}")
        for each in facts["seen_as"]:
            click.echo(f"  {each['by']} sees us as {each['as']}")
        for hint in facts["hints"]:
            click.echo(f"  {hint}")
    click.echo(f"port mapping: {_port_mapping(answer['port_mapping'])}")
    for each in answer["nuclei"]:
        rtt = "" if each["rtt_ms"] is None else f", {each['rtt_ms']} ms"
        click.echo(f"Nucleus {each['name']}: {'registered' if each['registered'] else each['hint']}{rtt}")


def _family_line(facts: dict[str, Any]) -> str:
    words = [f"mapping {facts['mapping']}", f"filtering {facts['filtering']}"]
    if facts["hairpin"] is not None:
        words.append(f"hairpin {'yes' if facts['hairpin'] else 'no'}")
    return ", ".join([*words, f"{facts['peers']} peers"])


def _port_mapping(facts: dict[str, Any]) -> str:
    if not facts["wanted"]:
        return "off (--port-mapping)"
    words = [
        f"{each['gateway']} gives {each['outside']} by {each['protocol']}"
        if each["outside"]
        else f"{each['gateway']} answers neither PCP, NAT-PMP nor UPnP"
        for each in facts["gateways"]
    ]
    return ", ".join(words) or "no IPv4 router to ask"
