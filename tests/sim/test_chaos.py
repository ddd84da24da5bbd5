"""A cluster in trouble: whatever happens for ten minutes, it heals once the trouble is over."""

from __future__ import annotations

from random import Random

import pytest

from omninervous.core.events import PersistMembers, PersistSerial, PersistTimestamp
from tests.sim.simnet import CALM, ROUGH, Edge, World
from tests.sim.test_cluster import Clusternet

EDGES = 5


class Chaos:
    """A cluster, and somebody who breaks it."""

    def __init__(self, seed: int) -> None:
        self.net = Clusternet(world=World(seed, ROUGH))
        self.random = Random(seed)
        self.boots = 0
        self.edges: list[Edge] = [self.net.edge(f"e{number}") for number in range(EDGES)]

    def some(self) -> Edge:
        return self.random.choice(self.edges)

    def talk(self) -> None:
        one, other = self.random.sample(self.edges, 2)
        one.send_to(other, "chatter")

    def restart(self) -> None:
        old = self.some()
        if self.random.random() < 0.5:
            old.stop()
        else:
            old.crash()
        self.boots += 1
        members = old.seen(PersistMembers)
        again = self.net.edge(
            old.name,
            identity=old.identity,
            nat=old.nat,
            boot=self.boots,
            timestamp_mark=old.seen(PersistTimestamp)[-1].mark if old.seen(PersistTimestamp) else None,
            serial_mark=max((event.serial for event in old.seen(PersistSerial)), default=0),
            members=members[-1].members if members else (),
        )
        again.events[:0] = [e for e in old.events if isinstance(e, PersistTimestamp | PersistSerial)][-4:]
        self.edges[self.edges.index(old)] = again

    def rebind(self) -> None:
        nat = self.some().nat
        assert nat is not None
        nat.rebind()

    def unplug(self) -> None:
        edge = self.some()
        self.net.world.detach(edge)
        self.net.run(self.random.uniform(1.0, 60.0))
        self.net.world.attach(edge)
        edge.do(lambda node, now: node.handle_timeout(now))

    def suspend(self) -> None:
        self.some().do(lambda node, now: node.reset_sessions(now, "suspend"))

    def restart_nucleus(self) -> None:
        self.net.restart_nucleus()

    def jump(self) -> None:
        self.some().wall_offset += self.random.uniform(-7200.0, 7200.0)

    def cause(self, seconds: float) -> None:
        end = self.net.world.boot + seconds
        troubles = [self.restart, self.rebind, self.unplug, self.suspend, self.restart_nucleus, self.jump]
        while self.net.world.boot < end:
            for _ in range(self.random.randrange(10)):
                self.talk()
                self.net.run(self.random.uniform(0.0, 2.0))
            self.random.choice(troubles)()
            self.net.run(self.random.uniform(0.0, 30.0))

    def heal(self) -> None:
        world = self.net.world
        world.weather = CALM
        healed = world.run(300.0, until=lambda: self.net.all_connected(self.edges))
        state = [(a.name, b.name) for a in self.edges for b in self.edges if a is not b and not a.connected(b)]
        assert healed, f"apart: {state} {world.context()}"
        world.run(60.0)  # whoever is mistaken about a session has found out
        pairs = [(one, other) for one in self.edges for other in self.edges if one is not other]
        unheard = pairs
        # A NAT that forgot an idle path is found out by the first frames: within three seconds of traffic.
        for number in range(6):
            for one, other in unheard:
                one.send_to(other, f"{number}: {one.name} to {other.name}")
            world.run(0.5)
            unheard = [(a, b) for a, b in unheard if not b.heard(a, f"{number}: {a.name} to {b.name}")]
        assert not unheard, f"not heard: {[(a.name, b.name) for a, b in unheard]} {world.context()}"
        assert len({edge.vip for edge in self.edges}) == EDGES


def test_a_cluster_heals(seed: int) -> None:
    chaos = Chaos(seed)
    chaos.cause(300.0)
    chaos.heal()


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("more", range(200))
def test_clusters_heal(seed: int, more: int) -> None:
    chaos = Chaos(seed + more)
    chaos.cause(1200.0)
    chaos.heal()
