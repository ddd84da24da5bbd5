"""Two ends of the reflex lane with static keys, each in a machine of its own: no daemon, no handshake."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from omninervous._native import Reflex
from omninervous.ganglion.tap import Tap
from omninervous.lab.topology import Host

__all__ = ["PORT", "ReflexEnd", "connect", "mac_of"]

PORT = 51820
_LIFETIME = 180.0
T = TypeVar("T")


def mac_of(number: int) -> bytes:
    """The MAC of end `number`."""
    return bytes([2, 0, 0, 0, 0, number])


@dataclass(slots=True)
class ReflexEnd:
    """One end: a TAP that nobody reads, and the lane."""

    host: Host
    number: int
    tap: Tap
    lane: Reflex

    @classmethod
    def create(cls, host: Host, number: int, mechanism: str = "tc") -> ReflexEnd:
        """Make omni0, load the programs, attach the receiving side."""
        namespace = host.namespace
        tap = namespace.call(lambda: Tap.create("omni0", offloads=True))
        namespace.ip_batch(
            f"link set omni0 address {mac_of(number).hex(':')} mtu 1380 up",
            f"address add 10.200.0.{number}/24 dev omni0",
            f"address add fd00::{number}/64 dev omni0 nodad",
        )
        mac1_key = hashlib.blake2s(b"mac1----" + cls.key(number)).digest()

        def load() -> Reflex:
            lane = Reflex(socket.if_nametoindex("omni0"), mac_of(number), mac1_key, PORT)
            lane.attach_underlay(socket.if_nametoindex(host.interface), mechanism)
            return lane

        return cls(host, number, tap, namespace.call(load))

    @staticmethod
    def key(number: int) -> bytes:
        """The X25519 key of end `number`, as far as anybody here cares."""
        return bytes([number]) * 32

    def call(self, function: Callable[[], T]) -> T:
        """Call something in this end's namespace."""
        return self.host.namespace.call(function)

    def counter(self, name: str) -> int:
        """One of its counters."""
        return dict(self.lane.counters())[name]

    def close(self) -> None:
        """Let everything go."""
        self.lane.close()
        self.tap.close()


def connect(a: ReflexEnd, b: ReflexEnd, *, v6: bool = False) -> None:
    """A session between the two, proven paths, sending on."""
    there, back = os.urandom(32), os.urandom(32)
    for me, other, send, receive in ((a, b, there, back), (b, a, back, there)):
        peer, index = ReflexEnd.key(other.number), 1000 + me.number
        other_address = other.host.address6 if v6 else other.host.address
        me.lane.set_peer(
            peer,
            mac_of(other.number),
            [socket.inet_aton(f"10.200.0.{other.number}"), socket.inet_pton(socket.AF_INET6, f"fd00::{other.number}")],
            1500,
        )
        me.lane.install_session(peer, index, 1000 + other.number, time.clock_gettime(time.CLOCK_BOOTTIME) + _LIFETIME)
        assert me.lane.open_lane(index, send, receive, True)
        me.lane.select_session(peer, index)
        me.lane.set_endpoint(peer, (str(other_address), PORT), True)
        me.host.namespace.ip_batch(
            f"neighbour replace 10.200.0.{other.number} lladdr {mac_of(other.number).hex(':')} dev omni0",
            f"neighbour replace fd00::{other.number} lladdr {mac_of(other.number).hex(':')} dev omni0",
        )
        me.call(me.lane.attach_overlay)
