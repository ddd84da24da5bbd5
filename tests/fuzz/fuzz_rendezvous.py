"""Invariant: whatever arrives, a Nucleus does not raise, gives no stranger a larger answer, and keeps its bounds.

    python -m tests.fuzz.fuzz_rendezvous [--seconds 60] [--seed N]

Arrivals: random bytes, real datagrams changed in a few places (outside the seal, where nothing can pass, and inside it,
as a hostile member would), from known and unknown addresses, while time passes.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter

from omninervous.core.cookies import with_macs
from omninervous.core.nucleus_handshakes import HandshakeLimits
from omninervous.core.rendezvous import RendezvousConfig
from omninervous.core.viewlog import ViewPosition
from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.address import Endpoint
from omninervous.wire.hello import Hello
from omninervous.wire.signalling import HeartbeatAck, Probe, QueryPeer, RegisterAck, decode_signalling
from tests.fuzz.command import main
from tests.nucleus_edges import Edge, World

EDGES = 24
MAX_SESSIONS = 40
MAX_MEMBERS = 20


class Fuzz:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        plenty = 10**9
        config = RendezvousConfig(
            HandshakeLimits(plenty, plenty, plenty, plenty),
            max_sessions=MAX_SESSIONS,
            max_members=MAX_MEMBERS,
            messages_per_edge=plenty,
            message_burst=plenty,
        )
        self.world = World(config)
        self.edges = [self.world.edge(number, boot=0) for number in range(1, EDGES)]
        self.positions: dict[int, ViewPosition] = {}
        self.tokens: dict[int, bytes] = {}
        self.endpoints = [edge.endpoint for edge in self.edges] + [
            Endpoint("2001:db8::1", 7),
            Endpoint("198.51.100.1", 7),
        ]

    def step(self) -> None:
        edge = self.random.choice(self.edges)
        source = edge.endpoint if self.random.random() < 0.8 else self.random.choice(self.endpoints)
        datagram, stranger = self.datagram(edge)
        lost = self.world.counter("drop_unknown_session")
        sent = self.world.deliver(source, datagram)
        if not stranger and self.world.counter("drop_unknown_session") > lost:
            self.begin(edge)
        if stranger:
            assert sum(len(data) for _, data in sent) <= len(datagram), "an answer larger than the question"
        for _, data in sent:
            self.read(data)
        if self.random.random() < 0.01:
            for _, data in self.world.wait(self.random.choice((0.5, 3.5, 40.0, 200.0))):
                self.read(data)
        snapshot = self.world.nucleus.snapshot()
        assert snapshot.sessions <= MAX_SESSIONS and snapshot.registry.edges <= MAX_MEMBERS

    def datagram(self, edge: Edge) -> tuple[bytes, bool]:
        """(bytes, whether they come from a stranger as far as the Nucleus can know)."""
        kind = self.random.randrange(8)
        if kind == 0:
            first = self.random.randrange(8)
            return bytes([first]) + self.random.randbytes(self.random.choice((0, 31, 63, 91, 147, 1400))), True
        if kind == 1:
            return self.changed(Hello(self.random.randbytes(16)).encode()), True
        if kind == 2:
            return self.begin(edge), True
        assert edge.session is not None
        plain = self.plaintext(edge)
        if kind <= 4:
            plain = self.changed(plain)
        sealed = edge.seal(plain)
        return (self.changed(sealed), False) if kind == 5 else (sealed, False)

    def begin(self, edge: Edge) -> bytes:
        edge.boot = self.random.randrange(3)
        initiation = edge.initiation(self.world.now)
        if self.random.random() < 0.4:
            damaged = self.changed(initiation)
            return with_macs(edge.nucleus, damaged, None) if self.random.random() < 0.5 else damaged
        for _, data in self.world.deliver(edge.endpoint, initiation):
            edge.finish(self.world.now, data)
        return initiation  # a copy of it is what the caller delivers

    def plaintext(self, edge: Edge) -> bytes:
        now, number = self.world.now, edge.number
        match self.random.randrange(9):
            case 0 | 1:
                return edge.register(now, tuple(self.random.sample(self.endpoints, self.random.randrange(9)))).encode()
            case 2 | 3 | 4:
                return edge.heartbeat(self.positions.get(number), self.tokens.get(number)).encode()
            case 5:
                return edge.query(self.random.choice(self.edges).key).encode()
            case 6:
                return QueryPeer(1, mac=self.random.randbytes(6), ask_initiate=True).encode()
            case 7:
                return edge.leave().encode()
            case _:
                return self.random.randbytes(self.random.randrange(1300))

    def changed(self, data: bytes) -> bytes:
        """Bytes replaced, cut off, or put in."""
        out = bytearray(data)
        for _ in range(self.random.randint(1, 4)):
            at = self.random.randrange(len(out) + 1)
            match self.random.randrange(4):
                case 0 | 1:
                    out[at : at + 1] = self.random.randbytes(1)
                case 2:
                    del out[at : at + self.random.randint(1, 8)]
                case _:
                    out[at:at] = self.random.randbytes(self.random.randint(1, 8))
        return bytes(out)

    def read(self, data: bytes) -> None:
        """What the Nucleus says to a member is always a message that decodes."""
        for edge in self.edges:
            assert edge.session is not None
            try:
                opened = edge.session.open(self.world.now.boot, data)
            except (RemoteError, DecodeError):
                continue
            match decode_signalling(opened.payload):
                case Probe(token=token):
                    self.tokens[edge.number] = token
                case HeartbeatAck() as ack:
                    at = ack.from_version if ack.cursor else ack.version
                    self.positions[edge.number] = ViewPosition(ack.epoch, at, ack.cursor)
                case RegisterAck() as registered:
                    self.positions[edge.number] = ViewPosition(registered.epoch, 0, registered.cursor)
                case None:
                    raise AssertionError("an unknown message from the Nucleus")


def run(seconds: float, seed: int) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while not outcomes or time.monotonic() < end:
        fuzz = Fuzz(seed + outcomes["rounds"])
        try:
            for _ in range(2000):
                fuzz.step()
                outcomes["arrivals"] += 1
                if time.monotonic() >= end:
                    break
        except Exception:
            print(f"run again with --seed {seed + outcomes['rounds']}", file=sys.stderr)
            raise
        outcomes["rounds"] += 1
        outcomes.update(fuzz.world.nucleus.snapshot().counters)
    return outcomes


if __name__ == "__main__":
    main(run, __doc__)
