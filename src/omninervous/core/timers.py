"""Deadlines by key: a heap with lazy deletion.

Setting a deadline is O(log n); the stale heap entries that re-setting leaves are skipped when they surface and swept
when they outnumber the live ones. Keys that fall due at the same instant come out in the order they were set.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Timers", "earliest"]

_SWEEP_SLACK = 64

K = TypeVar("K", bound=Hashable)


class Timers(Generic[K]):
    """At most one deadline per key, in boot-time seconds."""

    __slots__ = ("_deadlines", "_heap", "_serial")

    def __init__(self) -> None:
        self._deadlines: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._serial = 0

    def set(self, key: K, at: float | None) -> None:
        """Replace the key's deadline; None takes it away."""
        if at is None:
            self._deadlines.pop(key, None)
            return
        if self._deadlines.get(key) == at:
            return
        self._deadlines[key] = at
        self._serial += 1
        heapq.heappush(self._heap, (at, self._serial, key))
        if len(self._heap) > 4 * len(self._deadlines) + _SWEEP_SLACK:
            self._sweep()

    def next(self) -> float | None:
        """The earliest deadline."""
        while self._heap:
            at, _, key = self._heap[0]
            if self._deadlines.get(key) == at:
                return at
            heapq.heappop(self._heap)
        return None

    def pop_due(self, now_boot: float) -> list[K]:
        """Keys whose deadline is not after now; they have none afterwards."""
        due: list[K] = []
        while self._heap and self._heap[0][0] <= now_boot:
            at, _, key = heapq.heappop(self._heap)
            if self._deadlines.get(key) == at:
                del self._deadlines[key]
                due.append(key)
        return due

    def _sweep(self) -> None:
        self._heap = [entry for entry in self._heap if self._deadlines.get(entry[2]) == entry[0]]
        heapq.heapify(self._heap)


def earliest(*deadlines: float | None) -> float | None:
    """The smallest that is not None."""
    return min((at for at in deadlines if at is not None), default=None)
