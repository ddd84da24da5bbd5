"""The replay window against its definition: a set of what was accepted, and the highest of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from omninervous.core.replay import ReplayWindow

SIZES = st.sampled_from([1, 2, 63, 64, 65, 128, 200, 8192])
STEPS = st.lists(st.integers(-300, 300) | st.integers(-9000, 20_000), max_size=200)


@given(SIZES, STEPS)
def test_it_accepts_once_what_is_not_too_old(size: int, steps: list[int]) -> None:
    window = ReplayWindow(size)
    seen: set[int] = set()
    highest, position = -1, 0
    for step in steps:
        position = max(0, position + step)
        new = position not in seen and highest - position < size
        assert window.check(position) is new
        assert window.accept(position) is new
        if new:
            seen.add(position)
            highest = max(highest, position)
        assert window.highest == highest
        assert len(window._blocks) <= size // 64 + 2
