"""Clocks and MTUs that differ are told, and taken back when they do not any more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from omninervous.core.clock import Now
from omninervous.core.context import Context
from omninervous.core.differences import CLOCK_TOLERANCE, note_differences
from omninervous.core.events import NodeConfig
from omninervous.core.identity import Identity
from omninervous.wire.control import OUR_VERSIONS, Caps

PEER = bytes(32)
WALL = 1_900_000_000.0
CAPS = Caps(OUR_VERSIONS, bytes(16), 2, 1, 1, 1380, bytes(8), clock=int(WALL))


@pytest.fixture
def ctx() -> Context:
    return Context(NodeConfig(boot_id=bytes(16)), Identity.from_seed(bytes(32)), bytes)


def problems(ctx: Context, caps: Caps) -> dict[str, str]:
    note_differences(ctx, Now(1.0, WALL), PEER, caps)
    return {code: problem.text for (code, _), problem in ctx.problems.items()}


def test_alike_is_no_problem_and_neither_is_a_peer_that_does_not_say(ctx: Context) -> None:
    assert problems(ctx, CAPS) == {} and problems(ctx, replace(CAPS, clock=None)) == {}
    assert problems(ctx, replace(CAPS, clock=int(WALL) - CLOCK_TOLERANCE)) == {}


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(86_400, "24 h ahead of"), (-86_400, "24 h behind"), (600, "10 min ahead of"), (-(1 << 31) + 5, "behind")],
)
def test_another_time_is_told_with_its_size(ctx: Context, seconds: int, says: str) -> None:
    caps = replace(CAPS, clock=(int(WALL) + seconds) % (1 << 32))
    assert says in problems(ctx, caps)["clock_differs"]
    assert problems(ctx, CAPS) == {}, "it is taken back"


def test_another_mtu_is_told(ctx: Context) -> None:
    assert "MTU 1400" in problems(ctx, replace(CAPS, mtu=1400))["mtu_differs"]
    assert problems(ctx, CAPS) == {}
