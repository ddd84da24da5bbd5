"""Which peers somebody looks at with `omni pcap`: leases that end by themselves, however the looker ended.

What the kernel's lane sends never passes the interface's taps, so while a peer is looked at, what is sent to it takes
the bulk lane. What it receives is seen there in any case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from omninervous.core.dataplane import PeerId
from omninervous.errors import UserError
from omninervous.wire.address import format_mac

__all__ = ["LEASE", "Captures"]

LEASE = 5.0
"""Seconds; whoever looks renews it every second."""
_MOST = 16


@dataclass(slots=True)
class _Capture:
    name: str
    began: float
    until: float


class Captures:
    """`watch(peer, True)` takes a peer off the kernel's lane, `watch(peer, False)` gives it back."""

    def __init__(self, watch: Callable[[PeerId, bool], None]) -> None:
        self._watch = watch
        self._captures: dict[PeerId, _Capture] = {}

    def renew(self, now_boot: float, peer: PeerId, name: str, mac: bytes | None) -> dict[str, Any]:
        """Begin to look at a peer, or go on. UserError if there is nothing to see."""
        if mac is None:
            raise UserError(f"{name} has not proven its membership yet: there are no frames of it to see (omni peers)")
        capture = self._captures.get(peer)
        if capture is None:
            if len(self._captures) >= _MOST:
                raise UserError(f"{_MOST} peers are looked at already: end one of them (omni status)")
            capture = self._captures[peer] = _Capture(name, now_boot, 0.0)
        capture.until = now_boot + LEASE
        self._watch(peer, True)  # every time: a peer that was forgotten and came back is a new one
        return {"peer": name, "mac": format_mac(mac)}

    def expire(self, now_boot: float) -> None:
        """End what nobody renews."""
        for peer in [peer for peer, each in self._captures.items() if each.until < now_boot]:
            del self._captures[peer]
            self._watch(peer, False)

    def status(self, now_boot: float) -> list[dict[str, Any]]:
        """For `omni status`."""
        return [{"peer": each.name, "seconds": round(now_boot - each.began, 1)} for each in self._captures.values()]
