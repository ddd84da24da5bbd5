"""Paths whose middle takes less than a full frame and says nothing about it."""

from __future__ import annotations

import pytest

from omninervous.core.pathmtu import TRIES, VERIFY_EVERY
from omninervous.wire.address import Endpoint
from tests.sim.simnet import CALM, Edge, World, raw_frame
from tests.sim.test_pairs import connect, pair

FULL = "x" * 1380


def narrow_to(world: World, a: Edge, b: Edge, size: int | None) -> None:
    for way in ((a.address.host, b.address.host), (b.address.host, a.address.host)):
        world.narrow.pop(way, None)
        if size is not None:
            world.narrow[way] = size


def crosses(world: World, a: Edge, b: Edge, number: int) -> bool:
    """Whether a full frame from a reaches b within 0.5 s."""
    text = f"{number:04}{FULL[4:]}"
    a.send_to(b, text)
    world.run(0.5)
    return b.heard(a, text)


def until_it_crosses(world: World, a: Edge, b: Edge, tries: int) -> int:
    """How many full frames it takes, one every half a second."""
    for number in range(tries):
        if crosses(world, a, b, number):
            return number
    raise AssertionError(f"no full frame crosses: {world.context()}")


@pytest.fixture
def world() -> World:
    return World(1, CALM)


def test_full_frames_cross_a_narrow_hop_after_a_few_seconds_and_small_ones_always(world: World) -> None:
    a, b = pair(world)
    connect(world, a, b)
    narrow_to(world, a, b, 1400)
    lost = until_it_crosses(world, a, b, 4 * TRIES)
    assert 0 < lost <= 2 * (TRIES + 2)
    assert all(crosses(world, a, b, 100 + number) for number in range(20)), "and goes on so"
    assert ("path_mtu", str(b.address)) in {(each.code, each.subject) for each in a.snapshot().problems}
    assert until_it_crosses(world, b, a, 4 * TRIES) <= 2 * (TRIES + 2), "the other way finds out by itself"


def test_a_hop_that_is_wide_again_is_found_and_whole_frames_go(world: World) -> None:
    a, b = pair(world)
    connect(world, a, b)
    narrow_to(world, a, b, 1400)
    until_it_crosses(world, a, b, 4 * TRIES)
    narrow_to(world, a, b, None)
    for number in range(int(2 * VERIFY_EVERY) + 20):
        assert crosses(world, a, b, 200 + number)
    assert not a.snapshot().problems
    before = world.datagrams
    a.send_to(b, "0" * 1380)
    world.run(0.1)
    assert world.datagrams - before == 1, "in one piece"


def test_a_path_that_becomes_narrow_later_is_noticed(world: World) -> None:
    a, b = pair(world)
    connect(world, a, b)
    assert all(crosses(world, a, b, number) for number in range(20))
    narrow_to(world, a, b, 1400)
    until_it_crosses(world, a, b, int(2 * VERIFY_EVERY) + 4 * TRIES)


def test_nothing_is_tried_where_no_data_flows_and_little_where_it_does(world: World) -> None:
    a, b = pair(world)
    connect(world, a, b)
    world.run(20.0)
    before = world.bytes
    world.run(300.0)
    assert world.bytes - before < 10_000, "keepalives only"
    begun, frames = world.bytes, 600
    for number in range(frames):
        a.send_to(b, str(number))
        world.run(0.5)
    spent = world.bytes - begun
    tries = 300 / VERIFY_EVERY + 1
    assert spent < 2 * tries * 1500 + 300 * 2 * 150 + frames * 120


def test_a_lost_path_says_nothing_about_sizes(world: World) -> None:
    a, b = pair(world)
    connect(world, a, b)
    assert crosses(world, a, b, 0)
    ways = ((a.address.host, b.address.host), (b.address.host, a.address.host))
    for way in ways:
        world.ways[way] = None
    for number in range(8):
        a.send_to(b, raw_frame(a, b, f"lost {number}").hex())
        world.run(0.5)
    for way in ways:
        del world.ways[way]
    until_it_crosses(world, a, b, 60)
    assert not [each for each in a.snapshot().problems if each.code == "path_mtu"]


def test_what_is_tried_is_as_large_as_a_full_frame(world: World) -> None:
    a, b = pair(world)
    connect(world, a, b)
    largest: list[int] = []
    inject = world.inject

    def watch(source: Endpoint, target: Endpoint, data: bytes, inside: object = None) -> None:
        largest.append(len(data))
        inject(source, target, data)

    world.inject = watch  # type: ignore[method-assign]
    for number in range(6):
        a.send_to(b, str(number))
        world.run(0.5)
    assert max(largest) == 1380 + 14 + 1 + 32
