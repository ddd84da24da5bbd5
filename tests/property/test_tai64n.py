"""Timestamps across restarts, crashes and clocks that jump: never one that is not newer than all before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from omninervous.core.tai64n import Tai64nClock

WALLS = st.floats(-1e6, 4e9) | st.floats(1.79e9, 1.79e9 + 200)


@given(st.lists(st.tuples(WALLS, st.booleans(), st.booleans()), max_size=60))
def test_timestamps_only_grow(steps: list[tuple[float, bool, bool]]) -> None:
    """Each step: a wall clock, whether the process restarts first, whether the mark's write was in vain because
    no timestamp followed it."""
    disk: bytes | None = None
    clock, last = Tai64nClock(None), bytes(12)
    for wall, restart, crash_before_use in steps:
        if restart:
            clock = Tai64nClock(disk)
        mark = clock.reserve(wall)
        if mark is not None:
            assert disk is None or mark > disk
            disk = mark
        if crash_before_use:
            clock = Tai64nClock(disk)
            continue
        stamp = clock.next(wall)
        assert last < stamp
        assert disk is not None and stamp <= disk
        last = stamp
