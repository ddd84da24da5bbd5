"""Whatever the network loses, doubles and reorders, whoever joins, leaves and crashes, however much of the log is
forgotten and however often the Nucleus restarts: once messages get through, every edge's view is right."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omninervous.core import memory_registry, ring, viewlog
from omninervous.core.registry import MEMBER_TIMEOUT
from tests.registries import Delivery, Edge, Nucleus, assert_right_view, key_of

EDGES = 16
STEPS = 120
PATIENCE = 200
"""Messages of one edge until its view is right, generously."""


@pytest.fixture(autouse=True, scope="module")
def small_world() -> Iterator[None]:
    """Limits so small that sixteen edges get beyond each of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring, "FLOOD_SIDE", 2)
        patch.setattr(memory_registry, "INTEREST_LIMIT", 4)
        patch.setattr(viewlog, "QUERIED_LIMIT", 2)
        yield


class World:
    """A seeded schedule of everything that can happen."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.nucleus = Nucleus(room=self.random.choice((300, 500, 1100)), log_size=self.random.choice((1, 4, 4096)))
        self.wire: list[Delivery] = []
        self.running: dict[int, Edge] = {}
        self.starts = 0

    def step(self) -> None:
        what = self.random.choices(
            (self.deliver, self.lose, self.speak, self.ask, self.renew, self.start, self.stop, self.crash, self.move),
            (50, 8, 20, 14, 2, 10, 4, 3, 3),
        )[0]
        what()
        if self.random.random() < 0.03:
            self.now += self.random.choice((1.0, 30.0, 95.0))
            self.nucleus.registry.expire(self.now)
        if self.random.random() < 0.005:
            self.nucleus.restart()

    def deliver(self) -> None:
        if self.wire:
            index = self.random.randrange(len(self.wire))
            message = self.wire[index] if self.random.random() < 0.1 else self.wire.pop(index)
            message()

    def lose(self) -> None:
        if self.wire:
            self.wire.pop(self.random.randrange(len(self.wire)))

    def speak(self) -> None:
        if self.running:
            self.wire.append(self.some_edge().speak(self.now))

    def ask(self) -> None:
        if self.running:
            edge = self.some_edge()
            known = list(edge.to_ask) or [key_of(self.random.randrange(EDGES))]
            self.wire.append(edge.ask(known[0]))

    def start(self) -> None:
        number = self.random.randrange(EDGES)
        if number not in self.running:
            self.starts += 1
            self.running[number] = Edge(number, self.nucleus, self.wire, boot=self.starts)
            self.wire.append(self.running[number].speak(self.now))

    def stop(self) -> None:
        if self.running:
            edge = self.some_edge()
            self.wire.append(edge.leave(self.now))
            del self.running[edge.number]

    def crash(self) -> None:
        if self.running:
            del self.running[self.some_edge().number]

    def move(self) -> None:
        if self.running:
            self.some_edge().port += 1

    def renew(self) -> None:
        if self.running:
            self.wire.append(self.some_edge().register(self.now))

    def some_edge(self) -> Edge:
        return self.running[self.random.choice(sorted(self.running))]

    def heal(self) -> None:
        """The network carries every message at once, and every edge says all that it has to say."""
        self.wire.clear()
        self.now += MEMBER_TIMEOUT
        for number in sorted(self.running):
            self.running[number].speak(self.now)()  # whoever runs is heard; the answers are lost
        self.wire.clear()
        self.nucleus.registry.expire(self.now)
        for number in sorted(self.running):
            self.settle(self.running[number])
        for number in sorted(self.running):  # once more: the others' registrations are news to the first
            self.settle(self.running[number])

    def settle(self, edge: Edge) -> None:
        for _ in range(PATIENCE):
            edge.speak(self.now)()
            self.carry()
            if not edge.unknown and not edge.again and not edge.to_ask:
                return
            for key in list(edge.to_ask):
                edge.ask(key)()
                self.carry()
        raise AssertionError("does not settle")

    def carry(self) -> None:
        while self.wire:
            self.wire.pop(0)()


@pytest.mark.timeout(3600)  # the long profile
@given(st.integers(min_value=0, max_value=2**32))
def test_every_view_is_right_once_messages_get_through(seed: int) -> None:
    world = World(seed)
    for _ in range(3):
        for _ in range(STEPS):
            world.step()
        world.heal()
        for edge in world.running.values():
            assert_right_view(edge, world.nucleus, range(EDGES))
