"""Time and randomness as the core sees them: arguments, never read from the system."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Entropy", "Now"]

Entropy = Callable[[int], bytes]
"""Gives that many unpredictable bytes: `os.urandom` in a daemon, a seeded generator in a simulation."""


class Now(NamedTuple):
    """One instant on both clocks."""

    boot: float
    """Seconds on the boot-time clock (CLOCK_BOOTTIME): never goes back, counts suspend. All timers use it."""
    wall: float
    """Seconds since 1970 (CLOCK_REALTIME): may jump. Only TAI64N and membership validity use it."""
