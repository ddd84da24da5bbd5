"""When to try to reach a peer: attempts of five seconds, ninety seconds in all.

If nobody answers and the peer is still wanted, it is tried again for ten seconds after a pause, which doubles from
25 s to five minutes. Two that can never meet then cost each other little; a frame for the peer, news of it or of our
own network begin anew at once.
"""

from __future__ import annotations

from omninervous.core.clock import Now
from omninervous.core.context import Context
from omninervous.core.timers import earliest

__all__ = ["ATTEMPT_SECONDS", "Attempts"]

ATTEMPT_SECONDS = 5.0
ATTEMPT_JITTER = 1 / 3
GIVE_UP_AFTER = 90.0
RETRY_SECONDS = 10.0
RETRY_AFTER = 25.0
RETRY_MAX = 300.0
RETRY_JITTER = 5.0
PUNCH_DELAY = 0.1


class Attempts:
    """The schedule of one peer; `count` attempts were begun since the wish to connect."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.count = 0
        self._wish_at = 0.0
        self._patience = GIVE_UP_AFTER
        self._failures = 0
        self._ends_at: float | None = None
        self._begin_at: float | None = None

    @property
    def active(self) -> bool:
        """Whether an attempt is under way."""
        return self._ends_at is not None

    @property
    def planned(self) -> bool:
        """Whether one will begin by itself."""
        return self._begin_at is not None

    def begin(self, now: Now, *, briefly: bool = False) -> None:
        """The wish to connect, and the first attempt."""
        self._wish_at = now.boot
        self._patience = RETRY_SECONDS if briefly else GIVE_UP_AFTER
        self.count = 0
        self.next(now)

    def next(self, now: Now) -> None:
        """One more attempt."""
        self.count += 1
        self._begin_at = None
        self._ends_at = now.boot + ATTEMPT_SECONDS + self._ctx.jitter(ATTEMPT_JITTER)

    def insist(self) -> None:
        """Somebody waits for it now."""
        self._patience = GIVE_UP_AFTER

    def succeed(self) -> None:
        """There is a session."""
        self._failures = 0
        self.stop()

    def stop(self) -> None:
        """Done, or no longer wanted."""
        self._ends_at = self._begin_at = None

    def plan_retry(self, now: Now) -> None:
        """Nobody answered; try again after a while."""
        pause = min(RETRY_MAX, RETRY_AFTER * 2.0 ** min(self._failures, 10))
        self._failures += 1
        self._begin_at = now.boot + pause + self._ctx.jitter(RETRY_JITTER)

    def plan_punch(self, now: Now) -> None:
        """The other side is trying at this moment; meet it half way."""
        if self._begin_at is None or self._begin_at > now.boot + PUNCH_DELAY:
            self._begin_at = now.boot + PUNCH_DELAY

    def over(self, now: Now) -> bool:
        """Whether the present attempt has had its time."""
        return self._ends_at is not None and now.boot >= self._ends_at

    def hopeless(self, now: Now) -> bool:
        """Whether it was the last one."""
        return now.boot >= self._wish_at + self._patience

    def due(self, now: Now) -> bool:
        """Whether a planned beginning has come."""
        return self._begin_at is not None and now.boot >= self._begin_at

    def seconds(self, now: Now) -> float:
        """Since the wish, while an attempt is under way."""
        return now.boot - self._wish_at if self.active else 0.0

    def deadline(self) -> float | None:
        """When to look again."""
        return earliest(self._ends_at, self._begin_at)
