"""Random networks of NATs, from seeds: who can be direct is, soon; strangers get silence; looking around costs little.

The oracle is that of the laboratory (`omninervous.lab.natsites`), derived from the definitions of RFC 4787.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest

from omninervous.core.attempts import ATTEMPT_SECONDS
from omninervous.core.natview import GUESSES_PER_ATTEMPT
from omninervous.core.noise import Initiator
from omninervous.core.tai64n import Tai64nClock
from omninervous.lab.nat import NatKind
from omninervous.lab.natsites import Outcome, Site, judge
from omninervous.wire.address import Endpoint
from omninervous.wire.handshake import INITIATION_SIZE
from omninervous.wire.hello import Hello
from tests.sim.simnet import Edge, Nat, Weather, World, seeded_identity
from tests.sim.test_cluster import Clusternet

IN_CHECK = 60
IN_SOAK = 3000
DIRECT_WITHIN = 30.0
"""Simulated seconds after the last edge came: an attempt lasts 5 s, and up to 10 % of all datagrams are lost."""
APART_FOR = 30.0
GIVEN_UP_AFTER = 100.0
QUIET_FOR = 60.0
LEARNING = 5.0
"""That a NAT forgets sooner than was hoped is found out by a path that is lost, and found again."""
QUIET_BITS = 1000.0
"""A second, IP and UDP headers included, on an idle link between two edges or to the Nucleus."""
HOPELESS_BITS = 10_000.0
"""The same between two that cannot meet, in a minute with two or three retries of ten seconds of each."""
GUESS_BITS = GUESSES_PER_ATTEMPT * (INITIATION_SIZE + 28) * 8 / ATTEMPT_SECONDS
"""More where one of them guesses the ports of the other's NAT, for as long as they try."""
STRANGER = Endpoint("198.51.100.66", 6)
KINDS = {
    NatKind.FULL_CONE: ("none", False, False),
    NatKind.ADDRESS_RESTRICTED: ("address", False, False),
    NatKind.PORT_RESTRICTED: ("port", False, False),
    NatKind.SYMMETRIC: ("port", True, False),
    NatKind.SEQUENTIAL: ("port", True, True),
}


@dataclass
class Place:
    """One edge, and its place in words that the oracle knows."""

    edge: Edge
    site: Site


class Topology:
    """A network, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(f"topology {seed}")
        latency = random.uniform(0.001, 0.1)
        weather = Weather(latency, jitter=random.uniform(0.0, latency), loss=random.choice([0.0, 0.0, 0.02, 0.1]))
        self.net = Clusternet(world=World(seed, weather))
        self.world.spoof(STRANGER)
        self.places: list[Place] = []
        for number in range(random.randint(2, 6)):
            self._add(number)
            self.net.run(random.uniform(0.0, 3.0))

    @property
    def world(self) -> World:
        return self.net.world

    def _add(self, number: int) -> None:
        """A public machine, one behind a NAT of its own, or the neighbour of one that is there."""
        name, random = f"e{number}", self.random
        homes = [place for place in self.places if place.edge.nat is not None]
        draw = random.random()
        if draw < 0.2:
            self.places.append(Place(self.net.public(name, f"192.0.2.{number + 1}"), Site(name)))
        elif draw < 0.35 and homes:
            home = random.choice(homes)
            edge = self.net.edge(name, nat=home.edge.nat)
            self.places.append(Place(edge, home.site))
        else:
            kind = random.choice(list(KINDS))
            expiry = random.choice([20.0, 30.0, 120.0, 300.0])
            nat = Nat(f"203.0.113.{number + 1}", *KINDS[kind], expiry=expiry)
            self.places.append(Place(self.net.edge(name, nat=nat), Site(name, (kind,), siblings=f"LAN of {name}")))

    def pairs(self, outcome: Outcome) -> list[tuple[Edge, Edge]]:
        return [
            (one.edge, other.edge)
            for place, one in enumerate(self.places)
            for other in self.places[place + 1 :]
            if judge(one.site, other.site).outcome is outcome
        ]

    def counts(self, edge: Edge) -> bool:
        """Whether its NAT gives the next port to each new destination."""
        (site,) = (place.site for place in self.places if place.edge is edge)
        return NatKind.SEQUENTIAL in site.nats

    def intrude(self) -> None:
        """A stranger sends what costs most to refuse, to everybody's outside address."""
        eve, clock = seeded_identity("eve"), Tai64nClock(None)
        for place in self.places:
            nat = place.edge.nat
            ports = list(nat._in) if nat is not None else [place.edge.address.port]
            host = place.edge.address.host if nat is None else nat.public
            target = place.edge.identity.x25519_public
            hello = Initiator.create(
                eve.x25519_private, target, bytes(32), clock.next(self.world.now.wall), 7, self.world.entropy("eve")
            )
            for port in ports:
                for data in (hello.message, b"\4\0\0\0" + self.random.randbytes(44), Hello(bytes(16)).encode()):
                    self.world.inject(STRANGER, Endpoint(host, port), data)


def check(seed: int) -> None:
    topology = Topology(seed)
    world = topology.world
    can, cannot, may = (topology.pairs(each) for each in (Outcome.DIRECT, Outcome.NONE, Outcome.MAY_BE))

    def apart() -> list[str]:
        return [f"{a.name} {b.name}" for a, b in can if not (a.connected(b) and b.connected(a))]

    def together(within: float) -> bool:
        end = world.boot + within
        while apart() and world.boot < end:
            world.run(0.5)
        return not apart()

    topology.intrude()
    assert together(DIRECT_WITHIN), f"apart: {apart()} {world.context()}"
    topology.intrude()
    world.run(APART_FOR)
    assert not [f"{a.name} {b.name}" for a, b in cannot if a.connected(b) or b.connected(a)], world.context()
    world.weather = Weather(world.weather.latency)
    world.run(GIVEN_UP_AFTER - APART_FOR if cannot or may else 0.0)
    before = world.bytes + 28 * world.datagrams
    world.run(QUIET_FOR)
    apart_still = [*cannot, *((a, b) for a, b in may if not a.connected(b))]
    guessing = sum(topology.counts(a) != topology.counts(b) for a, b in apart_still)
    links = len(can) + len(cannot) + len(may) + len(topology.places)
    bits = (world.bytes + 28 * world.datagrams - before) * 8 / QUIET_FOR
    allowed = QUIET_BITS * links + HOPELESS_BITS * len(apart_still) + GUESS_BITS * guessing
    assert bits < allowed, f"{bits:.0f} bit/s on {links} links, {len(apart_still)} of them hopeless {world.context()}"
    assert together(LEARNING), f"parted while idle: {apart()} {world.context()}"
    assert world.sent_to(STRANGER) == 0, f"a stranger was answered {world.context()}"


@pytest.mark.parametrize("part", range(10))
def test_random_networks(seed: int, part: int) -> None:
    for number in range(part, IN_CHECK, 10):
        check(seed * 1_000_000 + number)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(10))
def test_thousands_of_random_networks(seed: int, part: int) -> None:
    for number in range(IN_CHECK + part, IN_SOAK, 10):
        check(seed * 1_000_000 + number)
