"""How long a path stays open without traffic: the lifetime of the bindings in the NATs and firewalls on it.

Nobody says; so it is tried out. A challenge that comes back after a silence of `interval` seconds shows that the path
outlives that; after two in a row the next step is tried. One that gets no answer, although the peer is found again at
once, shows that it does not: the step before is taken, and kept for an hour.

Both sides send, at random times around the interval, and whatever either sends starts both clocks again. So the side
whose binding is the shorter-lived one soon asks first, and the path gets what it needs.
"""

from __future__ import annotations

__all__ = ["FIRST_INTERVAL", "INTERVALS", "BindingLifetime"]

INTERVALS = (8.0, 15.0, 25.0, 40.0, 55.0, 75.0, 95.0, 115.0)
"""Seconds of silence before a keepalive. A session is renewed every 120 s, which keeps the path open too."""
FIRST_INTERVAL = 25.0
"""RFC 4787 asks for 2 minutes, section 4.3; many devices give 30 s."""
ENOUGH = 2
FORGIVE_AFTER = 3600.0
FOUND_AGAIN_WITHIN = 15.0


class BindingLifetime:
    """What was learned about one peer's path. Times are boot-time seconds."""

    def __init__(self) -> None:
        self._step = INTERVALS.index(FIRST_INTERVAL)
        self._good = 0
        self._limit = len(INTERVALS) - 1
        self._limited_at = 0.0
        self._lost: tuple[float, float] | None = None
        """When the path was lost, and after which silence."""

    @property
    def interval(self) -> float:
        """Seconds of silence after which a keepalive is due."""
        return INTERVALS[self._step]

    def handle_answer(self, boot: float, silence: float) -> None:
        """A challenge came back after so many seconds without traffic."""
        if silence < 0.8 * self.interval:
            return
        if boot >= self._limited_at + FORGIVE_AFTER:
            self._limit = len(INTERVALS) - 1
        self._good += 1
        if self._good >= ENOUGH and self._step < self._limit:
            self._step += 1
            self._good = 0

    def handle_silence(self, boot: float, silence: float) -> None:
        """A challenge after so many seconds without traffic got no answer."""
        self._lost = (boot, silence) if silence >= 0.8 * INTERVALS[0] else None

    def handle_found(self, boot: float) -> None:
        """A handshake came through: the peer is there, so what failed before was the path."""
        lost, self._lost = self._lost, None
        if lost is None or boot - lost[0] > FOUND_AGAIN_WITHIN:
            return
        good = [step for step, interval in enumerate(INTERVALS) if interval < 0.8 * lost[1]]
        self._step = self._limit = min(self._step, good[-1] if good else 0)
        self._limited_at = boot
        self._good = 0
