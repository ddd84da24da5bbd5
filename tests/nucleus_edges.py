"""Edges that speak to a `Rendezvous` with real handshakes, real signatures and no sockets."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import count

from omninervous.core.clock import Entropy, Now
from omninervous.core.cookies import MacGenerator
from omninervous.core.identity import Identity
from omninervous.core.membership import issue
from omninervous.core.noise import ZERO_PSK, Initiator
from omninervous.core.rendezvous import Rendezvous, RendezvousConfig
from omninervous.core.secret import ClusterKeys, derive_cluster
from omninervous.core.session import Session
from omninervous.core.tai64n import Tai64nClock
from omninervous.core.viewlog import ViewPosition
from omninervous.core.vip import derive_claim
from omninervous.wire.address import Endpoint
from omninervous.wire.control import OUR_VERSIONS
from omninervous.wire.handshake import RESPONSE_SIZE
from omninervous.wire.membership import VipClaim
from omninervous.wire.signalling import (
    Heartbeat,
    Leave,
    QueryPeer,
    Register,
    RegisterAck,
    RegisterStatus,
    SignallingMessage,
    decode_signalling,
)

FLEET = derive_cluster("fleet", None)
START = Now(1_000.0, 1_800_000_000.0)
SESSION_SECONDS = 180.0


def seeded(seed: int) -> Entropy:
    """Randomness that repeats."""
    return random.Random(seed).randbytes


def explicit(address: str) -> VipClaim:
    """A claim that an operator made."""
    return VipClaim(IPv4Address(address), 13)


@dataclass
class Edge:
    """One start of an edge's daemon. `number` is its identity."""

    number: int
    nucleus: bytes
    """X25519 key of the Nucleus."""
    endpoint: Endpoint
    boot: int = 0
    cluster: ClusterKeys = FLEET
    claim: VipClaim | None = None
    identity: Identity = field(init=False)
    session: Session | None = None

    def __post_init__(self) -> None:
        self.identity = Identity.from_seed(self.number.to_bytes(32, "big"))
        self.macs = MacGenerator(self.nucleus)
        self._clock = Tai64nClock(None)
        self._entropy = seeded(self.number << 8 | self.boot)
        self._requests = count(1)
        self._pending: Initiator | None = None

    @property
    def key(self) -> bytes:
        return self.identity.x25519_public

    def initiation(self, now: Now) -> bytes:
        """Begin a handshake."""
        stamp = self._clock.next(now.wall + self.boot)
        index = int.from_bytes(self._entropy(4), "big")
        private = self.identity.x25519_private
        self._pending = Initiator.create(private, self.nucleus, ZERO_PSK, stamp, index, self._entropy)
        return self.copy(now)

    def copy(self, now: Now) -> bytes:
        """The initiation again, with a cookie if one came."""
        assert self._pending is not None
        return self.macs.sign(now.boot, self._pending.message)

    def finish(self, now: Now, response: bytes) -> None:
        assert self._pending is not None
        transport = self._pending.finish(response)
        self.session = Session(transport.install(now.boot + SESSION_SECONDS))

    def seal(self, message: SignallingMessage | bytes) -> bytes:
        assert self.session is not None
        return self.session.seal(message if isinstance(message, bytes) else message.encode())

    def open(self, now: Now, datagram: bytes) -> SignallingMessage:
        assert self.session is not None
        message = decode_signalling(self.session.open(now.boot, datagram).payload)
        assert message is not None
        return message

    # ------------------------------------------------------------ messages

    def membership(self, now: Now) -> bytes:
        claim = self.claim or derive_claim(self.identity.public, 0)
        return issue(self.identity, self.cluster, claim, None, 1, now.wall)

    def register(self, now: Now, candidates: tuple[Endpoint, ...] = ()) -> Register:
        boot_id = self.boot.to_bytes(16, "big")
        public = self.cluster.public
        return Register(
            *(next(self._requests), self.cluster.name, public, self.membership(now), boot_id, OUR_VERSIONS, candidates)
        )

    def heartbeat(self, position: ViewPosition | None = None, token: bytes | None = None) -> Heartbeat:
        epoch, version, cursor = position or (0, 0, None)
        return Heartbeat(next(self._requests), epoch, version, cursor, (), token)

    def query(self, key: bytes, *, punch: bool = True) -> QueryPeer:
        return QueryPeer(next(self._requests), key=key, punch=punch)

    def leave(self) -> Leave:
        return Leave(next(self._requests))


class World:
    """A Nucleus, its edges, and a clock that the test moves. Every datagram arrives at once."""

    def __init__(self, config: RendezvousConfig | None = None) -> None:
        self.identity = Identity.from_seed(bytes(31) + b"N")
        self.nucleus = Rendezvous(config or RendezvousConfig(), self.identity, seeded(0))
        self.now = START

    def edge(self, number: int, *, boot: int = 0, cluster: ClusterKeys = FLEET, claim: VipClaim | None = None) -> Edge:
        """An edge with a session, unregistered."""
        endpoint = Endpoint(f"192.0.2.{number % 250}", 40_000 + number)
        edge = Edge(number, self.identity.x25519_public, endpoint, boot, cluster, claim)
        self.handshake(edge)
        return edge

    def member(self, number: int, *, cluster: ClusterKeys = FLEET, claim: VipClaim | None = None) -> Edge:
        """A registered edge."""
        edge = self.edge(number, cluster=cluster, claim=claim)
        ack = self.ask(edge, edge.register(self.now))
        assert isinstance(ack, RegisterAck) and ack.status is RegisterStatus.OK, ack
        return edge

    def handshake(self, edge: Edge) -> None:
        ((_, response),) = self.deliver(edge.endpoint, edge.initiation(self.now))
        assert len(response) == RESPONSE_SIZE
        edge.finish(self.now, response)

    def deliver(self, source: Endpoint, datagram: bytes) -> list[tuple[Endpoint, bytes]]:
        """What the Nucleus sends in answer."""
        self.nucleus.handle_datagram(self.now, source, datagram)
        return self.nucleus.poll_transmit()

    def say(
        self, edge: Edge, message: SignallingMessage | bytes, source: Endpoint | None = None
    ) -> list[tuple[Endpoint, bytes]]:
        """Datagrams that follow a message of an edge, to whomever."""
        return self.deliver(source or edge.endpoint, edge.seal(message))

    def ask(self, edge: Edge, message: SignallingMessage) -> SignallingMessage:
        """The one answer to a message."""
        answers = [edge.open(self.now, data) for where, data in self.say(edge, message) if where == edge.endpoint]
        assert len(answers) == 1, answers
        return answers[0]

    def wait(self, seconds: float) -> list[tuple[Endpoint, bytes]]:
        """Let time pass, timers included; what the Nucleus sends meanwhile."""
        end = self.now.boot + seconds
        sent: list[tuple[Endpoint, bytes]] = []
        while True:
            deadline = self.nucleus.poll_timeout()
            step = end if deadline is None else min(end, deadline)
            passed = max(0.0, step - self.now.boot)
            self.now = Now(self.now.boot + passed, self.now.wall + passed)
            self.nucleus.handle_timeout(self.now)
            sent += self.nucleus.poll_transmit()
            after = self.nucleus.poll_timeout()
            assert after is None or after > self.now.boot
            if self.now.boot >= end:
                return sent

    def counter(self, name: str) -> int:
        return self.nucleus.snapshot().counters.get(name, 0)
