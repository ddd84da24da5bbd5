"""A thousand edges and their Nucleus, the real core of each, in one process. A failure prints the seed to replay it."""

from __future__ import annotations

from random import Random

import pytest

from omninervous.core import ring
from omninervous.core.events import NodeConfig, NucleusConfig, PeerDown
from omninervous.core.ring import ring_position
from omninervous.core.secret import derive_cluster
from tests.sim.simnet import Edge, Nat, Nucleus, Weather, World, arp_request, seeded_identity

NAME = "nucleus.example:51820"
BAD_WEATHER = Weather(latency=0.02, jitter=0.02, loss=0.05, duplicate=0.03, reorder=0.05)


class Crowd:
    """Edges that start within ten seconds, every third one behind a NAT of its own."""

    def __init__(self, seed: int, size: int, flood_side: int) -> None:
        self.world = World(seed, BAD_WEATHER)
        self.random = Random(seed)
        self.flood_side = flood_side
        self.nucleus: Nucleus = self.world.nucleus("nucleus", seeded_identity("nucleus"), "198.51.100.1")
        cluster = derive_cluster("crowd", None)
        self.edges: list[Edge] = []
        for number in range(size):
            identity = seeded_identity(f"edge {number}")
            config = NodeConfig(
                boot_id=identity.public[:16],
                cluster=cluster,
                nuclei=(NucleusConfig(NAME),),
                eager=False,
                flood_side=flood_side,
            )
            high, low = divmod(number, 250)
            nat = Nat(f"203.{high}.{low}.1") if number % 3 == 0 else None
            edge = self.world.edge(f"edge {number}", identity, config, f"10.{high}.{low}.2", nat)
            self.edges.append(edge)
            self.world.at(self.world.boot + 10.0 * self.random.random(), lambda edge=edge: self._start(edge))  # type: ignore[misc]

    def _start(self, edge: Edge) -> None:
        edge.start([(NAME, self.nucleus.address)])

    def settled(self) -> bool:
        """Whether the Nucleus has them all and every one of them knows its neighbours, and nobody else."""
        if self.nucleus.rendezvous.snapshot().registry.edges != len(self.edges):
            return False
        live = sorted((ring_position(edge.identity.x25519_public), edge) for edge in self.edges)
        size, side = len(live), self.flood_side
        for place, (_, edge) in enumerate(live):
            near = [live[(place + step) % size][1] for step in range(-side, side + 1) if step]
            if {other.identity.x25519_public for other in near} != set(edge.snapshot().flood):
                return False
        return True

    def run_until_settled(self, seconds: float) -> None:
        for _ in range(int(seconds / 5.0)):
            self.world.run(5.0)
            if self.settled():
                return
        raise AssertionError(f"not settled after {seconds} s {self.world.context()}")

    def call(self, pairs: int) -> list[tuple[Edge, Edge]]:
        """Pairs of strangers; the first of each resolves the second's address."""
        chosen = [tuple(self.random.sample(self.edges, 2)) for _ in range(pairs)]
        for caller, callee in chosen:
            assert callee.vip is not None
            caller.transmit(arp_request(caller, callee.vip))
        return [(caller, callee) for caller, callee in chosen]

    def leave(self, count: int) -> None:
        """Some say goodbye."""
        for _ in range(count):
            self.edges.pop(self.random.randrange(len(self.edges))).stop()

    def crash(self, count: int) -> None:
        """Some do not."""
        for _ in range(count):
            self.edges.pop(self.random.randrange(len(self.edges))).crash()


def check_calls(crowd: Crowd, calls: list[tuple[Edge, Edge]]) -> None:
    """Everybody called is found, and hears its caller; a lost frame is sent again, as any stack would."""
    for caller, callee in calls:
        assert caller.frames, f"{callee.name} was not found by {caller.name} {crowd.world.context()}"
    waiting = calls
    for _ in range(20):
        for caller, callee in waiting:
            caller.send_to(callee, "hello stranger")
        crowd.world.run(1.0)
        waiting = [(caller, callee) for caller, callee in waiting if not callee.heard(caller, "hello stranger")]
    assert not waiting, f"{[(a.name, b.name) for a, b in waiting]} {crowd.world.context()}"


@pytest.mark.timeout(900)
def test_a_thousand_edges_find_their_places_and_one_another(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Four neighbours on each side instead of 32: the same code, an eighth of the bytes. `make soak` runs all of them.
    monkeypatch.setattr(ring, "FLOOD_SIDE", 4)
    crowd = Crowd(seed, 1000, flood_side=4)
    crowd.run_until_settled(120.0)
    addresses = [edge.vip for edge in crowd.edges]
    assert None not in addresses and len(set(addresses)) == 1000
    calls = crowd.call(60)
    crowd.world.run(10.0)
    check_calls(crowd, calls)
    crowd.leave(30)
    crowd.run_until_settled(120.0)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_thousand_edges_with_full_flood_sets_survive_a_day_of_trouble(seed: int) -> None:
    crowd = Crowd(seed, 1000, flood_side=32)
    crowd.run_until_settled(300.0)
    calls = crowd.call(300)
    crowd.world.run(10.0)
    check_calls(crowd, calls)
    crowd.leave(50)
    crowd.crash(50)
    crowd.run_until_settled(400.0)
    crowd.world.detach(crowd.nucleus)
    crowd.nucleus = crowd.world.nucleus("nucleus again", seeded_identity("nucleus"), "198.51.100.1")
    crowd.run_until_settled(400.0)
    assert not any(edge.seen(PeerDown) and not edge.snapshot().nuclei[0].registered for edge in crowd.edges)
