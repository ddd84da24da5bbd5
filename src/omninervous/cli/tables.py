"""The daemon's answers for people: rich tables, colours only on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from omninervous.ganglion.doctor import Finding

__all__ = ["SHOW", "duration", "quantity", "show_findings", "show_identity", "show_settings"]

_GOOD, _BAD, _DIM = "green", "bold red", "dim"
_STATES = {"up": _GOOD, "connecting": "yellow", "down": _BAD, "idle": _DIM}
_SHORT_KEY = 8
_WIDTH = 140


def show_status(status: Mapping[str, Any]) -> None:
    """`omni status`, of an edge or of a Nucleus."""
    console = _console()
    if status["mode"] == "nucleus":
        _show_nucleus_status(console, status)
        return
    interface, vip = status["interface"], status["vip"]
    console.print(
        _facts(
            ("identity", status["identity"]),
            ("WireGuard key", status["wireguard_public_key"]),
            ("interface", f"{interface['name']}  {interface['mac']}  mtu {interface['mtu']}"),
            ("addresses", "\n".join(interface["addresses"]) or "none"),
            ("virtual address", "none" if vip is None else f"{vip['address']}/{vip['prefix']} ({vip['source']})"),
            ("cluster", status["cluster"] or "none"),
            ("engine, port", f"{status['engine']} ({_queues(status['queues'])}), UDP {status['port']}"),
            ("kernel's lane", _reflex(status["reflex"])),
            ("sessions", f"{status['sessions_active']} active, {status['handshakes_completed']} handshakes so far"),
            ("daemon", f"version {status['version']}, pid {status['pid']}"),
        )
    )
    if status["nuclei"]:
        console.print(_nuclei(status["nuclei"]))
    _show_counters(console, status)
    for each in status["captures"]:
        console.print(
            Text.assemble(("captured ", "yellow"), f"frames of {each['peer']}, for {each['seconds']:.0f} s so far")
        )
    for problem in status["problems"]:
        console.print(Text.assemble(("problem ", _BAD), problem["text"], (f" ({problem['code']})", _DIM)))
    for sentence in status["missing"]:
        console.print(Text.assemble(("missing ", "yellow"), sentence))


def _queues(queues: Mapping[str, Any]) -> str:
    if not queues["express"]:
        return f"one queue: {queues['reason']}"
    return f"express and {queues['bulk']} bulk queue{'s' if queues['bulk'] > 1 else ''}"


def _reflex(reflex: Mapping[str, Any]) -> str:
    if reflex["mechanism"] == "off":
        return f"off: {reflex['because']}"
    names = sorted({each["name"] for each in reflex["programs"]})
    return f"{reflex['mechanism']} ({', '.join(names)}); {reflex['because']}"


def _show_nucleus_status(console: Console, status: Mapping[str, Any]) -> None:
    console.print(
        _facts(
            ("identity", status["identity"]),
            ("port", f"UDP {status['port']}"),
            ("registry", f"{status['registry']['edges']} edges in {status['registry']['clusters']} clusters"),
            ("sessions", str(status["sessions"])),
            ("daemon", f"version {status['version']}, pid {status['pid']}"),
        )
    )
    _show_counters(console, status)


def _nuclei(nuclei: list[Mapping[str, Any]]) -> Table:
    table = _table("Nucleus", "state", "endpoint", "seen as", "hint")
    for each in nuclei:
        _add(table, each["name"], _state(each["state"]), each["endpoint"] or "-", each["observed"] or "-", each["hint"])
    return table


def _show_counters(console: Console, status: Mapping[str, Any]) -> None:
    for title in ("counters", "drops"):
        numbers = {name: number for name, number in status.get(title, {}).items() if number}
        if numbers:
            line = "  ".join(f"{name} {number}" for name, number in numbers.items())
            console.print(Text.assemble((f"{title} ", "bold"), line))


_AEAD = {"aes-256-gcm": "AES", "chacha20-poly1305": "ChaCha"}


def show_peers(answer: Mapping[str, Any]) -> None:
    """`omni peers`."""
    console = _console()
    if not answer["peers"]:
        console.print("no peers")
        return
    table = _table(
        "peer", "name", "address", "state", "endpoint", "session", "AEAD", "lanes", "handshake", "received", "sent"
    )
    for peer in answer["peers"]:
        current = next((each["id"] for each in peer["sessions"] if each["current"]), "-")
        _add(
            table,
            (peer["identity"] or peer["wireguard_public_key"])[:_SHORT_KEY],
            peer["name"] or ("WireGuard" if peer["kind"] == "wireguard" else "-"),
            peer["vip"] or "-",
            _state(peer["state"]),
            f"{peer['endpoint'] or '-'}{_way(peer['path'])}",
            current,
            _AEAD.get(peer["aead"], "-"),
            _lanes(peer["lanes"]),
            duration(peer["handshake_age_seconds"]),
            quantity(peer["rx_bytes"]),
            quantity(peer["tx_bytes"]),
        )
    console.print(table)


def _way(path: Mapping[str, Any] | None) -> str:
    if path is None:
        return ""
    rtt = "" if path["rtt_ms"] is None else f" {path['rtt_ms']:.1f} ms"
    more = f" +{len(path['alternatives'])}" if path["alternatives"] else ""
    return f" {path['kind']}{rtt}{more}"


def _lanes(numbers: Sequence[int]) -> str:
    """The lanes that we send on: the names of docs/PROTOCOL.md."""
    names = {0: "base", 7: "express", 8: "reflex"}
    return (
        " ".join(dict.fromkeys(names.get(number, "bulk") for number in numbers if number or len(numbers) == 1)) or "-"
    )


def show_fdb(answer: Mapping[str, Any]) -> None:
    """`omni fdb`."""
    console = _console()
    if not answer["fdb"]:
        console.print("the table is empty: no peer is known")
        return
    table = _table("MAC", "peer", "address", "learned", "last frame")
    for entry in answer["fdb"]:
        last = "-" if entry["age_seconds"] is None else f"{duration(entry['age_seconds'])} ago"
        _add(
            table,
            entry["mac"],
            entry["peer"][:_SHORT_KEY],
            entry["vip"] or "-",
            "yes" if entry["learned"] else "no",
            last,
        )
    console.print(table)


def show_identity(described: Mapping[str, Any]) -> None:
    """`omni identity`."""
    _console().print(
        _facts(
            ("identity", described["identity"]),
            ("WireGuard key", described["wireguard_public_key"]),
            ("MAC", described["mac"]),
            ("ULA", described["ula"]),
            ("derived address", described["vip"]),
            ("kept in", described["state_dir"]),
        )
    )


def show_settings(described: Mapping[str, Any]) -> None:
    """`omni config show`."""
    table = _table("setting", "value", "from")
    for row in described["settings"]:
        value = row["value"]
        text = "-" if value is None else ", ".join(value) if isinstance(value, list) else str(value)
        _add(table, row["key"], text, row["origin"])
    for peer in described["peers"]:
        text = "  ".join(f"{key} {', '.join(it) if isinstance(it, tuple) else it}" for key, it in peer.items())
        _add(table, "[[peer]]", text, described["peers_origin"])
    _console().print(table)


def show_findings(findings: Sequence[Finding]) -> None:
    """`omni doctor`."""
    colours = {"ok": _GOOD, "warning": "yellow", "fault": _BAD}
    table = _table("", "check", "found", "what to do")
    for each in findings:
        _add(table, Text(each.state, style=colours[each.state]), each.check, each.text, each.remedy)
    _console().print(table)


SHOW: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    "status": show_status,
    "peers": show_peers,
    "fdb": show_fdb,
}


# ---------------------------------------------------------------- pieces


def duration(seconds: float | None) -> str:
    """`12 s`, `3 min`, `2 h`; `-` for None."""
    if seconds is None:
        return "-"
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def quantity(number: int) -> str:
    """Bytes with a binary prefix: `512 B`, `1.5 KiB`."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _console() -> Console:
    # Neither markup nor emoji codes: `[::1]:51820` and `62:cd:ab` must come out as they are.
    console = Console(markup=False, emoji=False, highlight=False)
    # A row that a narrow terminal breaks in two reads better than nine columns of three letters.
    console.width = max(console.width, _WIDTH)
    return console


def _facts(*rows: tuple[str, str]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for label, text in rows:
        _add(table, label, text)
    return table


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _add(table: Table, *cells: str | Text) -> None:
    table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))


def _state(state: str) -> Text:
    return Text(state, style=_STATES.get(state, ""))
