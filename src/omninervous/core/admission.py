"""Initiations from keys without a known membership: held while the Nucleus is asked, answered once it verifies.

Answering first would let a stranger test guesses of the secret offline, and would show him that we are here.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from omninervous.core.clock import Now
from omninervous.core.context import Context
from omninervous.core.dataplane import PeerId
from omninervous.core.noise import IncomingInitiation
from omninervous.core.ratelimit import RateLimiter
from omninervous.errors import RemoteError
from omninervous.wire.address import Endpoint

__all__ = ["ADMISSIONS_PER_SECOND", "HOLD_SECONDS", "SLOTS", "Admission", "Held"]

SLOTS = 64
HOLD_SECONDS = 5.0
ADMISSIONS_PER_SECOND = 10
"""Strangers' initiations that a Nucleus is asked about, after a first burst of SLOTS: far below what it takes of one
edge (`RendezvousConfig.messages_per_edge`), or a flood of them would silence us there."""


@dataclass(frozen=True, slots=True)
class Held:
    """An initiation that waits."""

    incoming: IncomingInitiation
    source: Endpoint
    data: bytes
    until: float


class Admission:
    """At most SLOTS initiations, one per key; the oldest goes first."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._held: OrderedDict[PeerId, Held] = OrderedDict()
        self._rate = RateLimiter(ADMISSIONS_PER_SECOND, SLOTS, capacity=1)

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, now: Now, incoming: IncomingInitiation, source: Endpoint, data: bytes) -> None:
        """Keep an initiation; a newer one of the same key takes its place, but not more time. RemoteError
        `admission_rate`: too many keys."""
        key = incoming.remote_static
        earlier = self._held.get(key)
        if earlier is None and not self._rate.allow(now.boot, ""):
            raise RemoteError("admission_rate")
        if earlier is not None and incoming.timestamp < earlier.incoming.timestamp:
            return
        until = now.boot + HOLD_SECONDS if earlier is None else earlier.until
        self._held[key] = Held(incoming, source, data, until)
        if len(self._held) > SLOTS:
            self._held.popitem(last=False)
            self._ctx.drop("admission_full")
        self._arm()

    def take(self, key: PeerId) -> Held | None:
        """The key is a member's, or is known not to be: what it sent."""
        held = self._held.pop(key, None)
        self._arm()
        return held

    def handle_timeout(self, now: Now) -> None:
        """Drop what waited too long."""
        while self._held:
            key, held = next(iter(self._held.items()))
            if now.boot < held.until:
                break
            del self._held[key]
            self._ctx.drop("unknown_initiator")
        self._arm()

    def _arm(self) -> None:
        oldest = next(iter(self._held.values()), None)
        self._ctx.timers.set(("admission", ""), None if oldest is None else oldest.until)
