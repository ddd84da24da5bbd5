"""Both lanes on two machines of the lab, driven by commands of the test in place of a core: what daemons do rarely."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Sequence
from typing import TypeVar

from omninervous._native import Reflex
from omninervous.core.cookies import mac1_key
from omninervous.core.dataplane import (
    Aead,
    Command,
    InstallSession,
    LaneKeys,
    Link,
    OpenLanes,
    SelectSession,
    SetEndpoint,
    SetPeer,
)
from omninervous.ganglion.tap import Tap
from omninervous.hostos import clock
from omninervous.hostos.udp import UdpQueues, bind_udp_queues
from omninervous.lab.daemons import PAIR_VIPS
from omninervous.lab.topology import Host
from omninervous.synapse.native import NativeEngine
from omninervous.synapse.reflex import ReflexEngine
from omninervous.wire.address import Endpoint

__all__ = ["KernelEdge", "Session"]

T = TypeVar("T")
PORT = 51820
LANES = (1, 7, 8)
LIFETIME = 180.0


class KernelEdge:
    """One machine: omni0, sockets, the native engine and the kernel's lane. Its id is its number."""

    def __init__(self, host: Host, number: int, mechanism: str) -> None:
        self.host, self.number = host, number
        self.mac = bytes([2, 0, 0, 0, 0, number])
        self.vip = PAIR_VIPS[number - 1]
        self.id = bytes([number]) * 32
        self.endpoint = Endpoint(str(host.address), PORT)
        self._tap, self._sockets = self.inside(lambda: (Tap.create("omni0", offloads=True, queues=2), self._bind()))
        host.namespace.ip_batch(
            f"link set omni0 address {self.mac.hex(':')} mtu 1380 up", f"address add {self.vip}/24 dev omni0"
        )
        self.engine = self.inside(lambda: self._start(mechanism))

    def inside(self, function: Callable[[], T]) -> T:
        """Call it in the machine's network namespace."""
        return self.host.namespace.call(function)

    def submit(self, *commands: Command) -> None:
        self.inside(lambda: self.engine.submit(commands))

    def meet(self, other: KernelEdge) -> None:
        """The other one is a proven neighbour."""
        neighbour = f"neigh replace {other.vip} lladdr {other.mac.hex(':')} nud permanent dev omni0"
        self.host.namespace.ip_batch(neighbour)
        self.submit(SetPeer(other.id, Link.ETHERNET, other.mac, (other.vip,)), SetEndpoint(other.id, other.endpoint))

    def close(self) -> None:
        self.engine.close()
        self._sockets.close()
        self._tap.close()

    def _bind(self) -> UdpQueues:
        return bind_udp_queues(PORT, None, 2)

    def _start(self, mechanism: str) -> ReflexEngine:
        queues = list(zip(self._tap.queues, map(tuple, self._sockets.queues), strict=True))
        kernel = Reflex(socket.if_nametoindex("omni0"), self.mac, mac1_key(self.id), PORT)
        kernel.attach_underlay(socket.if_nametoindex("eth0"), mechanism)
        kernel.attach_overlay()
        return ReflexEngine(NativeEngine(queues, self.mac), kernel)


class Session:
    """Keys of one session between two edges, and the commands of its life."""

    def __init__(self, edges: Sequence[KernelEdge], number: int, dice: random.Random) -> None:
        self.edges = edges
        self.indices = [number * 2 + 0x1000, number * 2 + 0x1001]
        self._base = [dice.randbytes(32), dice.randbytes(32)]
        self._lanes = {lane: [dice.randbytes(32), dice.randbytes(32)] for lane in LANES}

    def install(self, way: int) -> InstallSession:
        """`way`: on which of the two."""
        send, receive = self._base[way], self._base[1 - way]
        ends = clock.now().boot + LIFETIME
        return InstallSession(self.edges[1 - way].id, self.indices[way], self.indices[1 - way], send, receive, ends)

    def select(self, way: int) -> SelectSession:
        return SelectSession(self.edges[1 - way].id, self.indices[way])

    def open(self, way: int) -> OpenLanes:
        keys = tuple(
            LaneKeys(lane, Aead.CHACHA20_POLY1305, both[way], both[1 - way]) for lane, both in self._lanes.items()
        )
        return OpenLanes(self.indices[way], keys, ())

    def agree(self, way: int) -> OpenLanes:
        return OpenLanes(self.indices[way], (), LANES)
