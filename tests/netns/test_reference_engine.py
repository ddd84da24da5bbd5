"""The reference engine between real TAPs, over a real underlay. No daemons: the test plays the core.

::

    namespace a                                                  namespace b
    omni0 10.200.0.1 ── engine ── eth0 ─────── eth0 ── engine ── omni0 10.200.0.2

ARP is answered as the core would: both neighbours are entered by hand.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import pytest

from omninervous.core.dataplane import FrameUnresolved, SetEndpoint, UnderlayError
from omninervous.ganglion.tap import Tap
from omninervous.hostos.udp import UdpSockets, bind_udp
from omninervous.lab.namespaces import Lab
from omninervous.lab.topology import Host, pair_lan
from omninervous.synapse.reference import TAP_ENDPOINT, ReferenceEngine
from omninervous.wire.address import Endpoint
from omninervous.wire.frame import BROADCAST_MAC, build_ethernet, decode_arp
from tests.datapaths import Side, twins
from tests.engines import PATIENCE, wait_until
from tests.netns.edges import all_answered

MTU = 1380
PORT = 51820
TRANSFER = 4 << 20


class Edge:
    """A machine with an omni0 and an engine behind it."""

    def __init__(self, host: Host, side: Side) -> None:
        self.host, self.side = host, side
        self.namespace = host.namespace
        self.tap: Tap = self.namespace.call(lambda: Tap.create("omni0"))
        self.sockets: UdpSockets = self.namespace.call(lambda: bind_udp(PORT))
        self.engine = ReferenceEngine(self.tap.fileno(), list(self.sockets), side.mac, MTU)
        self.namespace.ip_batch(
            f"link set omni0 address {side.mac.hex(':')} mtu {MTU} up",
            f"address add {side.vip}/24 dev omni0",
            f"address add {side.ula}/64 dev omni0 nodad",
        )

    def close(self) -> None:
        self.engine.close()
        self.sockets.close()
        self.tap.close()

    def meet(self, other: Edge, endpoint: Endpoint) -> None:
        self.engine.submit([*self.side.introduce(other.side), SetEndpoint(other.side.id, endpoint)])
        for address in (other.side.vip, other.side.ula):
            self.namespace.ip("neigh", "replace", str(address), "lladdr", other.side.mac.hex(":"), "dev", "omni0")

    def ping(self, other: Edge, *, size: int = 56, version: int = 4) -> None:
        address = other.side.vip if version == 4 else other.side.ula
        all_answered(self.namespace, str(address), 20, "-i", "0.01", "-s", str(size))

    def counter(self, name: str) -> int:
        return self.engine.counters().get(name, 0)


@contextmanager
def edges(lab: Lab, *, mtu: int = 1500, version: int = 4) -> Generator[tuple[Edge, Edge], None, None]:
    hosts = pair_lan(lab, mtu=mtu)
    with ExitStack() as stack:
        a, b = (Edge(host, side) for host, side in zip(hosts, twins(), strict=True))
        stack.callback(a.close)
        stack.callback(b.close)
        for one, other in ((a, b), (b, a)):
            address = other.host.address if version == 4 else other.host.address6
            one.meet(other, Endpoint(str(address), PORT))
        yield a, b


@pytest.mark.parametrize("version", [4, 6])
def test_a_stack_reaches_the_other_one_over_either_underlay(lab: Lab, version: int) -> None:
    with edges(lab, version=version) as (a, b):
        a.ping(b)
        a.ping(b, version=6)
        a.ping(b, size=3000)
        assert a.counter("refitted") == 0, "a full omni0 frame fits an Ethernet underlay"
        assert set(b.engine.learned()) == {a.side.mac}


def test_a_tcp_transfer_arrives_whole(lab: Lab) -> None:
    data = os.urandom(TRANSFER)
    with edges(lab) as (a, b):
        listener = b.namespace.call(lambda: socket.create_server((str(b.side.vip), 5000)))
        listener.settimeout(PATIENCE)
        digests: list[bytes] = []

        def receive() -> None:
            connection, _ = listener.accept()
            digest = hashlib.sha256()
            with connection:
                connection.settimeout(PATIENCE)
                while piece := connection.recv(1 << 16):
                    digest.update(piece)
            digests.append(digest.digest())

        receiver = threading.Thread(target=receive)
        receiver.start()
        with a.namespace.call(lambda: socket.create_connection((str(b.side.vip), 5000), timeout=PATIENCE)) as sender:
            sender.sendall(data)
        receiver.join()
        listener.close()
        assert digests == [hashlib.sha256(data).digest()]


def test_raw_and_tagged_frames_cross_and_broadcast_reaches_the_flood_set(lab: Lab) -> None:
    with (
        edges(lab) as (a, b),
        a.namespace.packet_socket("omni0") as sender,
        b.namespace.packet_socket("omni0") as there,
    ):
        there.settimeout(PATIENCE)
        for destination in (b.side.mac, BROADCAST_MAC):
            for tags in (b"", bytes.fromhex("81002064")):
                frame = build_ethernet(destination, a.side.mac, 0x88B5, b"robot" * 10, tags)
                sender.send(frame)
                while (got := there.recv(2000)) != _as_packet_socket_shows(frame):
                    assert b"robot" not in got


def _as_packet_socket_shows(frame: bytes) -> bytes:
    """The kernel keeps an outer VLAN tag beside the packet, not in it (packet(7), PACKET_AUXDATA)."""
    return frame[:12] + frame[16:] if frame[12:14] == b"\x81\x00" else frame


@pytest.mark.parametrize("version", [4, 6])
def test_a_narrow_underlay_is_noticed_and_frames_are_cut_to_it(lab: Lab, version: int) -> None:
    with edges(lab, mtu=1300, version=version) as (a, b):
        # Alone: frames that are read together are sealed before any is refused. So without -w, which may send another.
        a.namespace.run("ping", "-c", "1", "-W", "2", "-s", "1300", str(b.side.vip))
        # The first frame is tried at 1500, 1400 and 1280 bytes, and carried; the later ones know.
        assert a.counter("refitted") == b.counter("refitted") == 2
        a.ping(b, size=1300)
        assert a.counter("refitted") == b.counter("refitted") == 2
        assert a.counter("drop_too_big") == 0


def test_an_arp_request_goes_to_the_core_not_over_the_wire(lab: Lab) -> None:
    with edges(lab) as (a, _):
        a.namespace.run("ping", "-c", "1", "-W", "1", "10.200.0.77", check=False)
        frames = [event.frame for event in a.engine.events() if isinstance(event, FrameUnresolved)]
        asked = {str(decode_arp(frame).target) for frame in frames if frame[12:14] == b"\x08\x06"}
        assert asked == {"10.200.0.77"}


def test_an_interface_that_is_down_costs_only_its_frames(lab: Lab) -> None:
    with edges(lab) as (a, b):
        b.namespace.ip("link", "set", "omni0", "down")
        a.namespace.run("ping", "-c", "3", "-i", "0.01", "-W", "1", str(b.side.vip), check=False)
        assert b.counter("drop_tap_write") >= 3
        assert UnderlayError(TAP_ENDPOINT, errno.EIO) in b.engine.events()
        b.namespace.ip("link", "set", "omni0", "up")
        b.namespace.ip("neigh", "replace", str(a.side.vip), "lladdr", a.side.mac.hex(":"), "dev", "omni0")
        a.ping(b)


def test_an_interface_that_is_deleted_does_not_keep_the_engine_busy(lab: Lab) -> None:
    with edges(lab) as (a, b):
        b.namespace.ip("link", "del", "omni0")
        wait_until(lambda: b.counter("drop_tap_read") > 0, "the engine noticed")
        assert any(isinstance(event, UnderlayError) and event.endpoint == TAP_ENDPOINT for event in b.engine.events())
        before = b.counter("drop_tap_read")
        a.namespace.run("ping", "-c", "100", "-i", "0.01", "-W", "1", str(b.side.vip), check=False)
        assert b.counter("rx_packets") >= 100, "the underlay side goes on"
        assert b.counter("drop_tap_read") - before < 10


def test_an_underlay_that_goes_away_comes_back(lab: Lab) -> None:
    with edges(lab) as (a, b):
        a.ping(b)
        a.namespace.ip("address", "flush", "dev", "eth0")
        a.namespace.run("ping", "-c", "3", "-i", "0.01", "-W", "1", str(b.side.vip), check=False)
        endpoint = Endpoint(str(b.host.address), PORT)
        assert UnderlayError(endpoint, errno.ENETUNREACH) in a.engine.events()
        assert a.counter("drop_underlay_error") >= 3
        a.namespace.ip("address", "add", f"{a.host.address}/24", "dev", "eth0")
        a.ping(b)
