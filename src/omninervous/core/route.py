"""One address of a peer, and the challenges that go there.

A *round* is a few challenges, each with a token of its own, until one comes back:

    0.0   0.1      0.35           0.85                     1.5 s
     |-----|---------|--------------|------------------------|
     challenges                                     over: nobody is there

`Paths` says when a round begins and sends what is due; this says what is due, and remembers what came back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from omninervous.wire.address import Endpoint

__all__ = ["ROUND", "ROUND_SECONDS", "Route"]

ROUND = (0.0, 0.1, 0.35, 0.85)
"""Seconds after the beginning of a round at which a challenge is sent."""
ROUND_SECONDS = 1.5
HURRY_AFTER = 0.02
SUSPECT_SECONDS = 0.4
SUSPECT_RTTS = 2.0
"""Both must have passed before the lack of an answer means something."""
RTTS_KEPT = 5


@dataclass(slots=True, eq=False)
class Route:
    """See the module's text. Times are boot-time seconds."""

    endpoint: Endpoint
    named: bool = False
    """The peer, its Nucleus or the operator named it; else it was only seen as a source: `allowance` holds."""
    allowance: int = 0
    """Bytes that may still be sent to an address that nobody named."""
    wanted: bool = False
    """The peer's frames come from here: follow it once it answers."""
    answered_at: float | None = None
    silent: bool = False
    """A round has ended without an answer since: whatever came before counts no more."""
    rtts: deque[float] = field(default_factory=lambda: deque(maxlen=RTTS_KEPT))
    _tokens: dict[bytes, float] = field(default_factory=dict)
    """Of this round -> when it was sent."""
    _began: float | None = None
    _hurried: bool = False

    @property
    def rtt(self) -> float | None:
        """The best of the last few: what waiting adds says nothing about the path."""
        return min(self.rtts, default=None)

    @property
    def active(self) -> bool:
        """Whether a round is under way."""
        return self._began is not None

    def answered_since(self, boot: float) -> bool:
        """Whether a challenge came back at that second or later."""
        return not self.silent and self.answered_at is not None and self.answered_at >= boot

    def begin(self, boot: float) -> None:
        """Start a round, in place of one that is under way."""
        self._began = boot
        self._tokens = {}
        self._hurried = False

    def hurry(self, boot: float) -> None:
        """A NAT may have swallowed what was sent so far, and lets more through: the next is due now, once a round."""
        sent = len(self._tokens)
        if self._began is None or self._hurried or not 0 < sent < len(ROUND):
            return
        if boot - max(self._tokens.values()) >= HURRY_AFTER:
            self._hurried = True
            self._began = boot - ROUND[sent]

    def end(self) -> None:
        """No more challenges."""
        self._began = None
        self.wanted = False

    def due(self, boot: float) -> bool:
        """Whether a challenge is to be sent now."""
        sent = len(self._tokens)
        return self._began is not None and sent < len(ROUND) and boot >= self._began + ROUND[sent]

    def over(self, boot: float) -> bool:
        """Whether the round ended without an answer."""
        return self._began is not None and boot >= self._began + ROUND_SECONDS

    @property
    def suspect_at(self) -> float | None:
        """When an answer is overdue, while there is none."""
        return None if self._began is None else self._began + max(SUSPECT_SECONDS, SUSPECT_RTTS * (self.rtt or 0.0))

    def deadline(self) -> float | None:
        """When the next challenge is due, or the round over."""
        if self._began is None:
            return None
        sent = len(self._tokens)
        return self._began + (ROUND[sent] if sent < len(ROUND) else ROUND_SECONDS)

    def sent(self, boot: float, token: bytes) -> None:
        """A challenge with this token leaves (or would have, without an allowance)."""
        self._tokens[token] = boot

    def handle_response(self, boot: float, token: bytes) -> bool:
        """Whether the token is one of this round's. If so the round is over, and the round-trip time known."""
        at = self._tokens.get(token)
        if at is None or self._began is None:
            return False
        self._began = None
        self._tokens = {}
        self.answered_at, self.silent = boot, False
        self.rtts.append(boot - at)
        return True
