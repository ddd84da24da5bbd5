"""A network of simulated machines: one heap of events, one seeded Random, the real core and the real data path.

    world = World(seed=1)
    a = world.edge("a", config=...)             Node + Datapath on one underlay address
    world.start(a); world.run(10.0)             ten simulated seconds

Machines stand on a public underlay or behind a `Nat`. Every datagram passes its sender's NAT, the `Weather` (delay,
loss, duplication, reordering) and the receiver's NAT. Nothing reads a clock or another source of randomness, so a seed
is a whole run: `world.trace` is a running hash of every datagram with its time.

Invariants checked all the time, in every simulation:

* no (key, counter) is used twice, over all machines, sessions, rekeys and restarts;
* after `handle_timeout(t)` the next deadline is after t, or None;
* no machine sends an address more than three times the bytes that came from it, before it has proven itself
  (`World.spoof` marks addresses that never answer).
"""

from __future__ import annotations

import hashlib
import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from random import Random
from typing import Protocol, TypeVar

from omninervous.core.clock import Now
from omninervous.core.dataplane import InstallSession, SendControl
from omninervous.core.events import NodeConfig, NodeEvent, NodeSnapshot, PeerStatus
from omninervous.core.identity import Identity
from omninervous.core.node import Node
from omninervous.core.rendezvous import Rendezvous, RendezvousConfig
from omninervous.synapse.datapath import Datapath
from omninervous.wire.address import Endpoint
from omninervous.wire.control import ControlType
from omninervous.wire.frame import (
    ARP_REQUEST,
    BROADCAST_MAC,
    ETHERNET_HEADER_SIZE,
    ETHERTYPE_ARP,
    ArpPacket,
    build_ethernet,
)

__all__ = [
    "CALM",
    "ROUGH",
    "Edge",
    "Machine",
    "Nat",
    "Nucleus",
    "Weather",
    "World",
    "arp_request",
    "raw_frame",
    "seeded_identity",
]

E = TypeVar("E")

WALL_AT_START = 1_800_000_000.0
PORT = 51820
ETHERTYPE_EXPERIMENT = 0x88B5


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to datagrams on the way. Probabilities 0..1, seconds."""

    latency: float = 0.01
    jitter: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    """Share of datagrams that are held back by up to five latencies more."""


CALM = Weather()
ROUGH = Weather(latency=0.02, jitter=0.03, loss=0.1, duplicate=0.1, reorder=0.1)


@dataclass(slots=True)
class Nat:
    """A router: endpoint-independent mapping; inbound filter by contacted address and port, by address, or none.

    `symmetric`: another port for every destination, at random; with `counting` it is the next number.
    """

    public: str
    filtering: str = "port"
    """`port` (port-restricted cone), `address`, or `none` (full cone)."""
    symmetric: bool = False
    counting: bool = False
    expiry: float = 120.0
    _out: dict[tuple[Endpoint, Endpoint | None], int] = field(default_factory=dict)
    _in: dict[int, Endpoint] = field(default_factory=dict)
    _contacted: dict[tuple[int, Endpoint], float] = field(default_factory=dict)

    def outbound(self, now: float, inner: Endpoint, target: Endpoint) -> Endpoint:
        """The source address that a packet leaves with."""
        key = (inner, target if self.symmetric else None)
        port = self._out.get(key)
        if port is None:
            port = self._new_port()
            self._out[key] = port
            self._in[port] = inner
        self._contacted[port, target] = now + self.expiry
        return Endpoint(self.public, port)

    def _new_port(self) -> int:
        if self.counting or not self.symmetric:
            return 40000 + len(self._out)
        random = Random(f"{self.public} {len(self._out)}")
        while (port := random.randint(1024, 65535)) in self._out.values():
            pass
        return port

    def inbound(self, now: float, source: Endpoint, port: int) -> Endpoint | None:
        """The inner address that a packet to `port` reaches."""
        inner = self._in.get(port)
        if inner is None:
            return None
        for (contacted_port, contacted), until in self._contacted.items():
            same = contacted == source if self.filtering == "port" else contacted.host == source.host
            if contacted_port == port and until >= now and (same or self.filtering == "none"):
                return inner
        return None

    def rebind(self) -> None:
        """Forget all mappings, and never use their ports again (as after a reboot of the router)."""
        self._in = {}
        self._contacted = {}
        self._out = {(Endpoint("0.0.0.0", n), None): p for n, p in enumerate(self._out.values())}


class Machine(Protocol):
    """What the world drives."""

    name: str
    number: int
    """Tells machines of one name (a restart, a clone) apart."""
    address: Endpoint
    """Where it listens, on its own side of the NAT."""
    nat: Nat | None
    more: tuple[Endpoint, ...]
    """Other addresses of a machine with several, none of them behind a NAT."""
    leaves_from: dict[str, Endpoint]
    """Its routes: the source towards a host, where it is not `address`."""

    def receive(self, now: Now, source: Endpoint, data: bytes) -> None: ...
    def timeout(self, now: Now) -> None: ...
    def deadline(self) -> float | None: ...
    def drain(self, now: Now) -> list[tuple[Endpoint, bytes]]: ...


class World:
    """The heap, the clock, the weather, the checks."""

    def __init__(self, seed: int, weather: Weather = CALM) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.weather = weather
        self.boot = 1000.0
        self.wall_offset = WALL_AT_START
        self.machines: dict[Endpoint, Machine] = {}
        self.nats: dict[str, Nat] = {}
        self.narrow: dict[tuple[str, str], int] = {}
        """(source host, target host) -> bytes of UDP payload; what is larger is lost without a word."""
        self.ways: dict[tuple[str, str], float | None] = {}
        """Latency from one host to another where it is not the weather's; None: nothing gets through."""
        self.datagrams = 0
        self.bytes = 0
        self.lost = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._numbers = self._streams = 0
        self._trace = hashlib.blake2s()
        self._armed: dict[int, float] = {}
        self._log: deque[str] = deque(maxlen=60)
        self._keys: dict[bytes, None] = {}
        self._counters: dict[tuple[int, int], int] = {}
        self._received: dict[Endpoint, int] = {}
        self._sent: dict[Endpoint, int] = {}
        self._spoofed: dict[Endpoint, None] = {}

    # ------------------------------------------------------------ building

    def edge(
        self, name: str, identity: Identity, config: NodeConfig, host: str, nat: Nat | None = None, port: int = PORT
    ) -> Edge:
        """An edge, not started."""
        return Edge(self, name, identity, config, Endpoint(host, port), nat)

    def nucleus(self, name: str, identity: Identity, host: str, config: RendezvousConfig | None = None) -> Nucleus:
        """A Nucleus, running."""
        machine = Nucleus(self, name, identity, Endpoint(host, PORT), config or RendezvousConfig())
        self.attach(machine)
        return machine

    def attach(self, machine: Machine) -> None:
        """Plug a machine in."""
        for address in (machine.address, *machine.more):
            self.machines[address] = machine
        if machine.nat is not None:
            self.nats[machine.nat.public] = machine.nat
        self.settle(machine)

    def detach(self, machine: Machine) -> None:
        """Pull the cable (and the plug: it is not driven any more)."""
        for address in [each for each, known in self.machines.items() if known is machine]:
            del self.machines[address]

    def entropy(self, name: str) -> Callable[[int], bytes]:
        """Random bytes for one machine, from the world's seed."""
        self._streams += 1
        return Random(f"{self.seed} {name} {self._streams}").randbytes

    def sent_to(self, spoofed: Endpoint) -> int:
        """Bytes that went to a marked address."""
        return self._sent.get(spoofed, 0)

    def next_number(self) -> int:
        """For one more machine."""
        self._numbers += 1
        return self._numbers

    def spoof(self, source: Endpoint) -> Endpoint:
        """Mark an address as one that never asked for anything: at most three times what it "sent" may go there."""
        self._spoofed[source] = None
        return source

    # ------------------------------------------------------------ time

    @property
    def now(self) -> Now:
        """The present on both clocks."""
        return Now(self.boot, self.boot + self.wall_offset)

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; True as soon as `until` holds (always False without it)."""
        end = self.boot + seconds
        if until is not None and until():
            return True
        while self._heap and self._heap[0][0] <= end:
            at, _, action = heapq.heappop(self._heap)
            self.boot = max(self.boot, at)
            action()
            if until is not None and until():
                return True
        self.boot = end
        return False

    def at(self, at: float, action: Callable[[], None]) -> None:
        """Do something at a boot-time second."""
        self._serial += 1
        heapq.heappush(self._heap, (at, self._serial, action))

    def settle(self, machine: Machine) -> None:
        """Send what a machine has to send, and arm its timer."""
        for target, data in machine.drain(self.now):
            self.send(machine, target, data)
        deadline = machine.deadline()
        if deadline is None or self._armed.get(machine.number) == deadline:
            return
        self._armed[machine.number] = deadline
        self.at(deadline, lambda: self._wake(machine, deadline))

    def _wake(self, machine: Machine, deadline: float) -> None:
        if self._armed.get(machine.number) != deadline or self.machines.get(machine.address) is not machine:
            return
        del self._armed[machine.number]
        machine.timeout(self.now)
        following = machine.deadline()
        assert following is None or following > self.boot, (
            f"{machine.name} wants to be woken in the past {self.context()}"
        )
        self.settle(machine)

    # ------------------------------------------------------------ packets

    def send(self, machine: Machine, target: Endpoint, data: bytes) -> None:
        """From a machine, through its NAT unless the target is its neighbour behind it. NATs do not hairpin."""
        self._check_nonce(machine, data)
        nat, neighbour = machine.nat, self.machines.get(target)
        if nat is None:
            self.inject(machine.leaves_from.get(target.host, machine.address), target, data)
        elif neighbour is not None and neighbour.nat is nat:
            self.inject(machine.address, target, data, inside=nat)
        elif target.host != nat.public:
            self.inject(nat.outbound(self.boot, machine.address, target), target, data)

    def inject(self, source: Endpoint, target: Endpoint, data: bytes, inside: Nat | None = None) -> None:
        """Onto the public underlay, or the network `inside` a NAT, and through the weather."""
        self.datagrams += 1
        self.bytes += len(data)
        self._check_reflection(source, target, data)
        self._trace.update(f"{self.boot:.6f} {source} {target}".encode() + data)
        self._log.append(f"{self.boot:12.4f}  {source} -> {target}  type {data[0]} {len(data)} B")
        weather, random = self.weather, self.random
        latency = self.ways.get((source.host, target.host), weather.latency)
        if latency is None or len(data) > self.narrow.get((source.host, target.host), len(data)):
            self.lost += 1
            return
        copies = 1 + (random.random() < weather.duplicate)
        for _ in range(copies):
            if random.random() < weather.loss:
                self.lost += 1
                continue
            delay = latency + weather.jitter * random.random()
            if random.random() < weather.reorder:
                delay += 5 * latency * random.random()
            self.at(self.boot + delay, lambda: self._arrive(source, target, data, inside))

    def _arrive(self, source: Endpoint, target: Endpoint, data: bytes, inside: Nat | None) -> None:
        nat = inside or self.nats.get(target.host)
        inner = target if nat is inside else nat.inbound(self.boot, source, target.port) if nat is not None else None
        machine = self.machines.get(inner) if inner is not None else None
        if machine is None or (machine.nat is not None and machine.nat is not nat):
            return
        machine.receive(self.now, source, data)
        self.settle(machine)

    # ------------------------------------------------------------ checks

    @property
    def trace(self) -> str:
        """Hash of everything that was sent so far, and when."""
        return self._trace.hexdigest()

    def context(self) -> str:
        """For a failing assertion: how to replay it, and what happened last."""
        return f"(replay: seed {self.seed})\n" + "\n".join(self._log)

    def note_key(self, key: bytes) -> None:
        """A machine installed a sending key: nobody may ever have had it before."""
        assert key not in self._keys, f"a sending key was installed twice {self.context()}"
        self._keys[key] = None

    def _check_nonce(self, machine: Machine, data: bytes) -> None:
        # `note_key` sees that no two sessions share a key, and indices are random: within a simulation a sender and a
        # receiver index stand for one key, whose counter must never come twice.
        if data[0] != 4:
            return
        index, counter = int.from_bytes(data[4:8], "little"), int.from_bytes(data[8:16], "little")
        lane = (machine.number, index << 4 | counter >> 60)
        assert counter > self._counters.get(lane, -1), f"(key, counter) used twice by {machine.name} {self.context()}"
        self._counters[lane] = counter

    def _check_reflection(self, source: Endpoint, target: Endpoint, data: bytes) -> None:
        if source in self._spoofed:
            self._received[source] = self._received.get(source, 0) + len(data)
        if target in self._spoofed:
            self._sent[target] = self._sent.get(target, 0) + len(data)
            assert self._sent[target] <= 3 * self._received.get(target, 0), f"reflection to {target} {self.context()}"


class Edge:
    """An edge: the Node and the Datapath, as a daemon drives them."""

    def __init__(
        self, world: World, name: str, identity: Identity, config: NodeConfig, address: Endpoint, nat: Nat | None
    ) -> None:
        self.world = world
        self.name = name
        self.number = world.next_number()
        self.wall_offset = 0.0
        """How wrong its calendar clock is."""
        self.identity = identity
        self.config = config
        self.address = address
        self.nat = nat
        self.more: tuple[Endpoint, ...] = ()
        self.leaves_from: dict[str, Endpoint] = {}
        self.node = Node(config, identity, world.entropy(name))
        self.datapath = Datapath(identity.mac, world.entropy(f"{name} datapath"))
        self.events: list[NodeEvent] = []
        self.frames: list[bytes] = []

    def start(self, nuclei: Sequence[tuple[str, Endpoint]] = (), candidates: Sequence[Endpoint] | None = None) -> Edge:
        """Plug it in and start the daemon."""
        now = self.now
        self.world.attach(self)
        self.node.start(now)
        self.node.set_candidates(now, (self.address,) if candidates is None else candidates)
        for name, endpoint in nuclei:
            self.node.set_nucleus_endpoints(now, name, (endpoint,))
        self.world.settle(self)
        return self

    def stop(self) -> None:
        """SIGTERM."""
        self.node.close(self.now)
        self.world.settle(self)
        self.world.detach(self)

    def crash(self) -> None:
        """kill -9."""
        self.world.detach(self)

    def move(self, address: Endpoint, nat: Nat | None = None, *, notice: bool = False) -> None:
        """Another underlay address, perhaps behind a NAT (roaming); with `notice` the daemon is told at once."""
        self.world.detach(self)
        self.address, self.nat = address, nat
        self.world.attach(self)
        if notice:
            self.do(lambda node, now: node.set_candidates(now, (address,)))
            self.do(lambda node, now: node.network_changed(now))

    def transmit(self, frame: bytes) -> None:
        """The local stack sends a frame."""
        self.datapath.from_tap(self.world.boot, frame)
        self.world.settle(self)

    def do(self, action: Callable[[Node, Now], None]) -> None:
        """Call the node, then drain."""
        action(self.node, self.now)
        self.world.settle(self)

    def seen(self, kind: type[E]) -> list[E]:
        """Events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def snapshot(self) -> NodeSnapshot:
        """The node's state."""
        return self.node.snapshot(self.now)

    def peer(self, other: Edge) -> PeerStatus | None:
        """What it knows of another edge."""
        key = other.identity.x25519_public
        return next((peer for peer in self.snapshot().peers if peer.peer == key), None)

    def connected(self, other: Edge) -> bool:
        """Whether frames can go to another edge."""
        peer = self.peer(other)
        return peer is not None and peer.state == "up" and peer.mac is not None and peer.proven

    @property
    def vip(self) -> IPv4Address | None:
        """The address in force."""
        claim = self.snapshot().vip
        return None if claim is None else claim.address

    def send_to(self, other: Edge, text: str) -> None:
        """The local stack sends a raw frame to another edge's MAC."""
        self.transmit(raw_frame(self, other, text))

    def heard(self, other: Edge, text: str) -> bool:
        """Whether exactly that frame came from another edge."""
        return raw_frame(other, self, text) in self.frames

    # ------------------------------------------------------------ Machine

    @property
    def now(self) -> Now:
        """The present by its own clocks."""
        now = self.world.now
        return Now(now.boot, now.wall + self.wall_offset)

    def receive(self, now: Now, source: Endpoint, data: bytes) -> None:
        self.datapath.from_underlay(now.boot, source, data)

    def timeout(self, now: Now) -> None:
        datapath_due = self.datapath.next_deadline()
        if datapath_due is not None and datapath_due <= now.boot:
            self.datapath.handle_timeout(now.boot)
        due = self.node.poll_timeout()
        if due is not None and due <= now.boot:
            self.node.handle_activity(self.now, self.datapath.activity())
            self.node.handle_timeout(self.now)

    def deadline(self) -> float | None:
        deadlines = [at for at in (self.node.poll_timeout(), self.datapath.next_deadline()) if at is not None]
        return min(deadlines, default=None)

    def drain(self, now: Now) -> list[tuple[Endpoint, bytes]]:
        datagrams: list[tuple[Endpoint, bytes]] = []
        while True:
            self.events += self.node.poll_events()
            commands = self.node.poll_commands()
            for command in commands:
                if isinstance(command, InstallSession):
                    self.world.note_key(command.send_key)
                if isinstance(command, SendControl):
                    tried = command.payload[1:2] == bytes((ControlType.PATH_CHALLENGE,))
                    assert len(command.payload) <= (self.config.mtu + ETHERNET_HEADER_SIZE + 1 if tried else 1200)
            self.datapath.submit(now.boot, commands)
            output = self.datapath.take()
            datagrams += output.datagrams
            self.frames += output.frames
            if output.events:
                self.node.handle_events(self.now, output.events)
            elif not commands:
                return datagrams


class Nucleus:
    """A Nucleus on a public address."""

    def __init__(
        self, world: World, name: str, identity: Identity, address: Endpoint, config: RendezvousConfig
    ) -> None:
        self.nat: Nat | None = None
        self.more: tuple[Endpoint, ...] = ()
        self.leaves_from: dict[str, Endpoint] = {}
        self.name = name
        self.number = world.next_number()
        self.identity = identity
        self.address = address
        self.rendezvous = Rendezvous(config, identity, world.entropy(name))

    def receive(self, now: Now, source: Endpoint, data: bytes) -> None:
        self.rendezvous.handle_datagram(now, source, data)

    def timeout(self, now: Now) -> None:
        self.rendezvous.handle_timeout(now)

    def deadline(self) -> float | None:
        return self.rendezvous.poll_timeout()

    def drain(self, now: Now) -> list[tuple[Endpoint, bytes]]:
        return self.rendezvous.poll_transmit()


def raw_frame(sender: Edge, receiver: Edge, text: str) -> bytes:
    """An Ethernet frame of a protocol that nobody looks into."""
    return build_ethernet(receiver.identity.mac, sender.identity.mac, ETHERTYPE_EXPERIMENT, text.encode())


def arp_request(sender: Edge, target: IPv4Address) -> bytes:
    """`who has target` from an edge's own stack."""
    own = sender.vip or IPv4Address(0)
    arp = ArpPacket(ARP_REQUEST, sender.identity.mac, own, bytes(6), target)
    return build_ethernet(BROADCAST_MAC, sender.identity.mac, ETHERTYPE_ARP, arp.encode())


def seeded_identity(name: str) -> Identity:
    """The same identity for the same name, always."""
    return Identity.from_seed(hashlib.blake2s(f"simulated identity {name}".encode()).digest())
