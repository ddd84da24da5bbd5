"""The host's clocks, and how long it slept."""

from __future__ import annotations

import time

from omninervous.core.clock import Now

__all__ = ["SuspendDetector", "now"]

# CLOCK_BOOTTIME counts suspend, CLOCK_MONOTONIC does not. macOS has only the latter (and stops in sleep).
_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> Now:
    """This instant on both clocks."""
    return Now(time.clock_gettime(_BOOT), time.time())


class SuspendDetector:
    """Tells when the machine slept: then the boot-time clock has gone ahead of the monotonic one."""

    THRESHOLD = 2.0
    """Seconds of sleep that count; reading two clocks one after the other costs microseconds."""

    def __init__(self) -> None:
        self._offset = self._read()

    def slept(self) -> float:
        """Seconds of suspend since the last call, 0.0 if below the threshold."""
        offset = self._read()
        asleep, self._offset = offset - self._offset, offset
        return asleep if asleep >= self.THRESHOLD else 0.0

    @staticmethod
    def _read() -> float:
        return time.clock_gettime(_BOOT) - time.clock_gettime(time.CLOCK_MONOTONIC)
