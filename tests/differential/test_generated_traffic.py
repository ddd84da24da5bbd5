"""The native engine gives the reference's bytes, events, counters and verdicts for whatever happens to an edge."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from tests.differential.engines import Operation, Trace, trace
from tests.differential.world import US, World


def assert_equal_traces(operations: list[Operation]) -> list[Trace]:
    expected = trace("reference", US.mac, operations)
    for number, (operation, ours, theirs) in enumerate(
        zip(operations, expected, trace("native", US.mac, operations), strict=True)
    ):
        assert theirs == ours, f"operation {number}: {operation}"
    return expected


@given(st.randoms(use_true_random=False), st.integers(1, 25))
def test_everything_that_happens_to_an_edge_has_the_same_trace(dice: random.Random, number: int) -> None:
    world = World(dice)
    for _ in range(number):
        world.act()
    assert_equal_traces(world.operations)


def test_long_lives_have_the_same_trace(seed: int) -> None:
    for number in range(20):
        world = World(random.Random(f"{seed}/{number}"))
        for _ in range(200):
            world.act()
        assert_equal_traces(world.operations)
