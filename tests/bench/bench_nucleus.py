"""How much a Nucleus serves: a real one on loopback, and simulated edges with real sessions over real UDP.

    python -m tests.bench.bench_nucleus [--edges 1000] [--seconds 5]

"per core" divides by the CPU time, user and system, of the Nucleus process alone: the edges run in this process and
take more than it does. Every hundredth answer is opened and checked.
"""

from __future__ import annotations

import argparse
import os
import platform
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from omninervous.core.clock import Now
from omninervous.core.identity import x25519_of
from omninervous.core.memory_registry import MemoryRegistry
from omninervous.core.registry import Since
from omninervous.core.viewlog import ViewPosition
from omninervous.hostos import clock
from omninervous.hostos.control import request
from omninervous.lab.process import cpu_seconds
from omninervous.wire.address import Endpoint
from omninervous.wire.hello import Hello, decode_hello_reply
from omninervous.wire.membership import VipClaim
from omninervous.wire.signalling import HeartbeatAck, HeartbeatStatus, RegisterAck, RegisterStatus
from tests.nucleus_edges import Edge
from tests.registries import CLUSTER, key_of, registration

WINDOW = 64
"""Messages on their way at once."""
SOCKETS = 16
CHECK_EVERY = 100
CHUNK = 1000
"""Edges that shake hands before they register: a Nucleus does not keep a session for long that is not used."""

_SERVER = """
import sys
from pathlib import Path
from omninervous.core.nucleus_handshakes import HandshakeLimits
from omninervous.core.rendezvous import RendezvousConfig
from omninervous.hostos import logs
from omninervous.nucleus.server import NucleusConfig, run_nucleus
logs.configure("json")
many = 10**6
limits = RendezvousConfig(HandshakeLimits(many, many, many, many), messages_per_edge=many, message_burst=many)
run_nucleus(NucleusConfig(Path(sys.argv[1]), 0, limits=limits), ready=lambda port: print(port, flush=True))
"""


class Meter:
    """What one kind of message costs: its number, and the seconds of the wall clock and of another process's CPUs."""

    def __init__(self, pid: int, what: str) -> None:
        self._pid = pid
        self._what = what
        self.number, self.wall, self.cpu = 0, 0.0, 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        wall, cpu = time.monotonic(), cpu_seconds(self._pid)
        yield
        self.wall += time.monotonic() - wall
        self.cpu += cpu_seconds(self._pid) - cpu

    def __str__(self) -> str:
        per_core = f"{self.number / self.cpu:9.0f}" if self.cpu else "        -"
        rate = f"{self.number / self.wall:9.0f} /s {per_core} /s and core"
        return f"{self._what:34} {rate}   ({self.number} in {self.wall:.2f} s)"


class Swarm:
    """Edges that share a few sockets, each with its own session."""

    def __init__(self, port: int, count: int) -> None:
        self._target = ("127.0.0.1", port)
        self._sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(SOCKETS)]
        for each in self._sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            each.setblocking(False)
            each.bind(("127.0.0.1", 0))
        nucleus = x25519_of(self._hello())
        here = [Endpoint(*each.getsockname()) for each in self._sockets]
        self.edges = [
            # Addresses of their own: among so many, derived ones collide.
            Edge(number + 1, nucleus, here[number % SOCKETS], claim=VipClaim(IPv4Address("10.200.0.1") + number, 13))
            for number in range(count)
        ]

    def _hello(self) -> bytes:
        self._sockets[0].sendto(Hello(os.urandom(16)).encode(), self._target)
        select.select(self._sockets[:1], [], [], 5.0)
        return decode_hello_reply(self._sockets[0].recv(2048)).identity

    def exchange(
        self, edges: Sequence[Edge], make: Callable[[Edge], bytes], take: Callable[[Edge, bytes], None]
    ) -> int:
        """One message of each edge, WINDOW at once; answers received."""
        waiting: list[deque[Edge]] = [deque() for _ in self._sockets]
        sent = got = lost = 0
        while got + lost < len(edges):
            while sent < len(edges) and sent - got - lost < WINDOW:
                edge = edges[sent]
                slot = (edge.number - 1) % SOCKETS
                self._sockets[slot].sendto(make(edge), self._target)
                waiting[slot].append(edge)
                sent += 1
            readable, _, _ = select.select(self._sockets, [], [], 2.0)
            if not readable:
                lost = sent - got
                waiting = [deque() for _ in self._sockets]
            for udp in readable:
                queue = waiting[self._sockets.index(udp)]
                while True:
                    try:
                        data = udp.recv(2048)
                    except BlockingIOError:
                        break
                    got += 1
                    take(queue.popleft(), data)
        if lost:
            print(f"  {lost} answers lost", file=sys.stderr)
        return got


@contextmanager
def nucleus() -> Iterator[tuple[int, int, Path]]:
    """(pid, port, state directory) of a running Nucleus."""
    with tempfile.TemporaryDirectory(prefix=f"omni-bench-{os.getpid()}-") as state:
        process = subprocess.Popen([sys.executable, "-c", _SERVER, state], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield process.pid, int(process.stdout.readline()), Path(state)
        finally:
            process.terminate()
            process.wait(10)


def bench_registry(members: int, seconds: float) -> None:
    """The store alone, without sessions or sockets."""
    registry = MemoryRegistry(1)
    for number in range(members):
        registry.register(0.0, CLUSTER, registration(number))
    keys = [key_of(number) for number in range(members)]
    version = registry.page(CLUSTER, keys[0], Since(0, 0), 0).version
    here = registration(0).endpoint
    for what, since in (("nothing new", Since(1, version)), ("one change since", Since(1, version - 1))):
        begin, count = time.process_time(), 0
        while time.process_time() - begin < seconds:
            for key in keys:
                registry.refresh(1.0, CLUSTER, key, here, ())
                registry.page(CLUSTER, key, since, 1100)
            count += members
        print(f"{'registry alone, ' + what:34} {'':14}{count / (time.process_time() - begin):9.0f} /s and core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs, {given.edges} edges")
    bench_registry(given.edges, given.seconds / 5)
    with nucleus() as (pid, port, state):
        run(Swarm(port, given.edges), pid, given.seconds)
        status = request(state, "status")
        resident = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in line)
    print(f"{status['registry']['edges']} edges, {status['sessions']} sessions, {resident}, drops {status['drops']}")


def run(swarm: Swarm, pid: int, seconds: float) -> None:
    now = clock.now()
    newest = RegisterAck(0, RegisterStatus.OK)
    registers: dict[int, bytes] = {}
    initiations: dict[int, bytes] = {}

    def registered(edge: Edge, data: bytes) -> None:
        nonlocal newest
        ack = edge.open(now, data)
        assert isinstance(ack, RegisterAck) and ack.status is RegisterStatus.OK, ack
        newest = max(newest, ack, key=lambda each: each.version)

    shaking, registering = Meter(pid, "handshakes"), Meter(pid, "REGISTER with a first page")
    for begin in range(0, len(swarm.edges), CHUNK):
        edges = swarm.edges[begin : begin + CHUNK]
        for edge in edges:  # beforehand: what signing and Diffie-Hellman cost here is not to be waited for
            registers[edge.number] = edge.register(now).encode()
            initiations[edge.number] = edge.initiation(now)
        with shaking.running():
            shaking.number += swarm.exchange(
                edges, lambda edge: initiations[edge.number], lambda edge, data: edge.finish(now, data)
            )
        with registering.running():
            registering.number += swarm.exchange(edges, lambda edge: edge.seal(registers[edge.number]), registered)
    print(shaking, registering, sep="\n")
    for what, version in (("HEARTBEAT, nothing new", newest.version), ("HEARTBEAT, one change", newest.version - 1)):
        meter = Meter(pid, what)
        heartbeats(swarm, meter, ViewPosition(newest.epoch, version, None), now, seconds)
        print(meter)


def heartbeats(swarm: Swarm, meter: Meter, position: ViewPosition, now: Now, seconds: float) -> None:
    payload = swarm.edges[0].heartbeat(position).encode()
    answered = 0

    def take(edge: Edge, data: bytes) -> None:
        nonlocal answered
        answered += 1
        if answered % CHECK_EVERY == 0:
            ack = edge.open(now, data)
            assert isinstance(ack, HeartbeatAck) and ack.status is HeartbeatStatus.OK, ack

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for begin in range(0, len(swarm.edges), CHUNK):
            edges = swarm.edges[begin : begin + CHUNK]
            with meter.running():
                meter.number += swarm.exchange(edges, lambda edge: edge.seal(payload), take)


if __name__ == "__main__":
    main()
