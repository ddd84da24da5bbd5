"""Tables for people: every answer can be shown, as it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from omninervous.cli import tables

STATUS: dict[str, Any] = {
    "mode": "edge",
    "version": "0",
    "pid": 7,
    "identity": "K" * 50,
    "wireguard_public_key": "w=",
    "interface": {"name": "omni0", "mac": "62:cd:ab:66:c9:8a", "mtu": 1380, "addresses": ["10.200.0.1/13"]},
    "engine": "reference",
    "queues": {"bulk": 1, "express": False, "reason": "the reference engine has one queue"},
    "reflex": {
        "mechanism": "tc",
        "because": "eth0: XDP on a [veth]",
        "programs": [{"name": "tc_synapse", "hook": "ingress", "interface": "eth0"}],
    },
    "captures": [{"peer": "[b]robot", "seconds": 7.4}],
    "port": 51820,
    "cluster": "[red]fleet[/]",
    "vip": {"address": "10.200.0.1", "prefix": 13, "source": "explicit", "derivation": None},
    "nuclei": [{"name": "[::1]:51820", "endpoint": None, "state": "down", "observed": None, "hint": "no answer"}],
    "sessions_active": 1,
    "handshakes_completed": 2,
    "counters": {"rx_packets": 5, "tx_packets": 0},
    "drops": {"source_guard": 3},
    "problems": [{"code": "vip_taken", "text": "[x] holds it", "subject": ""}],
    "missing": ["no --peer"],
}
PEER: dict[str, Any] = {
    "identity": None,
    "wireguard_public_key": "w" * 44,
    "name": "",
    "vip": None,
    "kind": "wireguard",
    "state": "up",
    "endpoint": "[2001:db8::1]:5",
    "path": {"kind": "nat", "rtt_ms": 12.34, "endpoint": "192.0.2.2:51820", "alternatives": []},
    "sessions": [{"id": "ab" * 8, "current": True}],
    "handshake_age_seconds": 5.0,
    "aead": "aes-256-gcm",
    "lanes": [0, 1, 7, 8],
    "rx_bytes": 2048,
    "tx_bytes": 0,
}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_status_shows_what_is_wrong_and_prints_nothing_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    tables.SHOW["status"](STATUS)
    shown = capsys.readouterr().out
    for text in (
        "62:cd:ab",
        "[red]fleet[/]",
        "[::1]:51820",
        "[x] holds it",
        "source_guard 3",
        "no --peer",
        "explicit",
        "tc (tc_synapse)",
        "[veth]",
        "captured frames of [b]robot, for 7 s",
    ):
        assert text in shown
    assert "\x1b" not in shown and "tx_packets" not in shown


def test_status_without_an_address_and_of_a_nucleus(capsys: pytest.CaptureFixture[str]) -> None:
    bare = copy.deepcopy(STATUS) | {"vip": None, "nuclei": [], "cluster": None}
    tables.SHOW["status"](bare)
    tables.SHOW["status"](
        {
            "mode": "nucleus",
            "identity": "K",
            "port": 5,
            "registry": {"clusters": 1, "edges": 2},
            "sessions": 2,
            "version": "0",
            "pid": 7,
            "counters": {},
        }
    )
    assert "2 edges in 1 clusters" in capsys.readouterr().out


def test_peers_and_fdb_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    tables.SHOW["peers"]({"peers": [PEER, PEER | {"sessions": [], "handshake_age_seconds": None, "endpoint": None}]})
    tables.SHOW["peers"]({"peers": []})
    entry = {"mac": "62:cd:ab:66:c9:8a", "peer": "K" * 50, "vip": None, "learned": True, "age_seconds": 3.0}
    tables.SHOW["fdb"]({"fdb": [entry, entry | {"learned": False, "age_seconds": None}]})
    tables.SHOW["fdb"]({"fdb": []})
    shown = capsys.readouterr().out
    for text in (
        "[2001:db8::1]:5 nat 12.3 ms",
        "abababab",
        "2.0 KiB",
        "WireGuard",
        "62:cd:ab",
        "3 s ago",
        "no peers",
        "bulk express reflex",
    ):
        assert text in shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "-"), (0.2, "0 s"), (119, "119 s"), (121, "2 min"), (7100, "118 min"), (9000, "2 h")]
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert tables.duration(seconds) == shown


@pytest.mark.parametrize(("number", "shown"), [(0, "0 B"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")])
def test_quantities(number: int, shown: str) -> None:
    assert tables.quantity(number) == shown
