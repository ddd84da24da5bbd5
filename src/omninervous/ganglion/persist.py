"""What an edge remembers over a restart, in the state directory.

| file           | what                                                             | if it is lost                   |
|----------------|------------------------------------------------------------------|---------------------------------|
| `marks.json`   | TAI64N mark, membership serial: what must only grow              | peers may refuse us for a while |
| `vip.json`     | cluster, VIP claim that the cluster accepted                     | asked again                     |
| `pins.json`    | Nucleus keys trusted on first use: `host:port` -> key            | trusted on first use again      |
| `members.json` | cluster, verified memberships and endpoints                      | the Nucleus tells again         |
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from omninervous.core.events import CachedMember
from omninervous.errors import UserError
from omninervous.hostos.state import StateDir
from omninervous.wire.address import Endpoint
from omninervous.wire.keytext import decode_key, encode_key
from omninervous.wire.membership import VipClaim

__all__ = ["Memory", "Remembered"]

_MARKS, _VIP, _PINS, _MEMBERS = "marks.json", "vip.json", "pins.json", "members.json"
_TIMESTAMP_SIZE = 12


@dataclass(frozen=True, slots=True)
class Remembered:
    """What earlier runs left. A damaged file counts as none."""

    timestamp_mark: bytes | None
    serial_mark: int
    derivation: int
    vip_known: bool
    pins: Mapping[str, bytes]
    members: tuple[CachedMember, ...]


class Memory:
    """Reads and writes it. `cluster` is the cluster's public key, empty for none: what it says holds in it only."""

    def __init__(self, state: StateDir, cluster: bytes, claim: VipClaim | None) -> None:
        self._state = state
        self._cluster = cluster.hex()
        self._claim = claim
        marks = state.read_json(_MARKS)
        self._timestamp: str = marks["timestamp"] if _is_hex(marks.get("timestamp"), _TIMESTAMP_SIZE) else ""
        self._serial: int = marks["serial"] if isinstance(marks.get("serial"), int) else 0
        self._pins = dict(_read_pins(state.read_json(_PINS)))

    def recall(self) -> Remembered:
        """What the files say now."""
        derivation, known = self._recall_vip()
        members = self._state.read_json(_MEMBERS)
        return Remembered(
            timestamp_mark=bytes.fromhex(self._timestamp) if self._timestamp else None,
            serial_mark=self._serial,
            derivation=derivation,
            vip_known=known,
            pins=dict(self._pins),
            members=_read_members(members.get("members")) if members.get("cluster") == self._cluster else (),
        )

    def _recall_vip(self) -> tuple[int, bool]:
        saved = self._state.read_json(_VIP)
        if saved.get("cluster") != self._cluster:
            return 0, False
        derivation = saved.get("derivation")
        if self._claim is not None:
            return 0, derivation is None and saved.get("claim") == str(self._claim)
        if isinstance(derivation, int) and 0 <= derivation < 0xFFFF:
            return derivation, True
        return 0, False

    def keep_timestamp(self, mark: bytes) -> None:
        """On the disk when this returns."""
        self._timestamp = mark.hex()
        self._write_marks()

    def keep_serial(self, serial: int) -> None:
        """On the disk when this returns."""
        self._serial = serial
        self._write_marks()

    def _write_marks(self) -> None:
        self._state.write_json(_MARKS, {"timestamp": self._timestamp, "serial": self._serial})

    def keep_vip(self, derivation: int | None) -> None:
        """The cluster accepted this derivation, or (None) the explicit claim."""
        claim = None if self._claim is None else str(self._claim)
        self._state.write_json(_VIP, {"cluster": self._cluster, "derivation": derivation, "claim": claim})

    def keep_pin(self, name: str, identity: bytes) -> None:
        """The Nucleus of that name proved this key: from now on no other is accepted, unless the operator gives it."""
        if self._pins.get(name) == identity:
            return
        self._pins[name] = identity
        self._state.write_json(_PINS, {each: encode_key(key) for each, key in self._pins.items()})

    def keep_members(self, members: tuple[CachedMember, ...]) -> None:
        """Replace the cache. Touches nothing that other methods touch: may run in a thread."""
        entries = [
            {
                "membership": b64encode(each.membership).decode(),
                "endpoints": [[endpoint.host, endpoint.port] for endpoint in each.endpoints],
            }
            for each in members
        ]
        self._state.write_json(_MEMBERS, {"cluster": self._cluster, "members": entries})


def _is_hex(value: object, size: int) -> bool:
    try:
        return isinstance(value, str) and len(bytes.fromhex(value)) == size
    except ValueError:
        return False


def _read_pins(saved: Mapping[str, Any]) -> Mapping[str, bytes]:
    pins = {}
    for name, text in saved.items():
        try:
            pins[name] = decode_key(text)
        except (UserError, TypeError, AttributeError):
            continue
    return pins


def _read_members(saved: object) -> tuple[CachedMember, ...]:
    members = []
    for entry in saved if isinstance(saved, list) else ():
        try:
            endpoints = tuple(Endpoint(str(ip_address(host)), int(port)) for host, port in entry["endpoints"])
            members.append(CachedMember(b64decode(entry["membership"], validate=True), endpoints))
        except (KeyError, TypeError, ValueError, binascii.Error):
            continue
    return tuple(members)
