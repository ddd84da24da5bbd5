"""Whoever is not a member gets nothing: junk of every kind dies in the kernel, each by its reason, unanswered."""

from __future__ import annotations

import base64
import random
import struct
import threading
import time
from collections import Counter

import pytest

from omninervous.core.cookies import with_macs
from omninervous.lab.capture import Capture, frames_of, udp_datagram
from omninervous.lab.daemons import PAIR_VIPS, Daemon, start_pair
from omninervous.lab.namespaces import Lab
from omninervous.lab.process import poll_until
from omninervous.lab.topology import Host
from omninervous.wire.frame import internet_checksum
from tests.netns.edges import Pair, ping, wait_for

PORT = 51820
REFLEX = 8
REPEATS = 20
FLOOD = 5_000
"""Initiations per second: a hundred times what the programs let a stranger send."""
_COUNTER_TOP = 15
"""Byte of a transport message whose upper half names the lane."""


def transport(index: int, lane: int, sequence: int, sealed: bytes) -> bytes:
    return struct.pack("<IIQ", 4, index, lane << 60 | sequence) + sealed


def live_datagram(lab: Lab, hosts: tuple[Host, Host]) -> bytes:
    """A datagram of the kernel's lane that B sent to A, as it was on the wire."""
    capture = Capture(lab, hosts[1].namespace, "eth0", "live", packet_filter="udp")
    assert ping(hosts[1].namespace, str(PAIR_VIPS[0]), 3).loss == 0
    for frame in frames_of(capture.stop()):
        found = udp_datagram(frame)
        if found and found.source == hosts[1].address and found.payload[_COUNTER_TOP] >> 4 == REFLEX:
            return found.payload
    raise AssertionError("no datagram of the kernel's lane")


def junk(live: bytes, dice: random.Random) -> list[tuple[str, bytes]]:
    """Reason and datagram."""
    (index,) = struct.unpack_from("<I", live, 4)
    some = dice.randbytes
    flipped = bytearray(live)
    flipped[8] ^= 0x80  # another sequence number, not seen before
    return [
        ("runt", b""),
        ("runt", b"\x04\0\0"),
        ("bad_type", b"\x07\0\0\0" + some(60)),
        ("bad_type", b"\x01\0\x01\0" + some(144)),
        ("bad_type", b"\x04\x01\0\0" + live[4:]),
        ("bad_type", b"\xf0\0\0\0" + some(124)),
        ("bad_length", b"\x01\0\0\0" + some(143)),
        ("bad_length", b"\x02\0\0\0" + some(89)),
        ("bad_mac1", b"\x01\0\0\0" + some(144)),
        ("bad_mac1", b"\x02\0\0\0" + some(88)),
        ("unknown_handshake", b"\x03\0\0\0" + some(60)),
        ("not_a_nucleus", b"\x05\0\0\0" + some(60)),
        ("unknown_hello", b"\x06\0\0\0" + some(52)),
        ("runt", live[:31]),
        ("unknown_session", transport(index ^ 1, REFLEX, 7, some(64))),
        ("unknown_session", transport(index ^ 1, 0, 7, some(64))),
        ("lane", transport(index, 9, 7, some(64))),
        ("lane", transport(index, 15, 7, some(64))),
        ("counter_limit", transport(index, REFLEX, (1 << 60) - 1, some(64))),
        ("replay", live),
        ("bad_tag", transport(index, REFLEX, 1 << 40, some(64))),
        ("bad_tag", bytes(flipped)),
        ("bad_tag", live[:8] + struct.pack("<Q", REFLEX << 60 | 1 << 41) + live[16:]),
        ("bad_tag", transport(index, 0, 1 << 40, some(64))),
        ("frame_too_big", transport(index, REFLEX, 1 << 42, some(2100))),
    ]


def drops(edge: Daemon) -> Counter[str]:
    return Counter(edge.status()["drops"])


@pytest.mark.parametrize("mode", ["tc", "xdp"])
def test_an_outside_host_gets_nothing_and_every_datagram_is_counted(
    lab: Lab, pair_lan: tuple[Host, Host], mode: str, seed: int
) -> None:
    edges = start_pair(lab, pair_lan, "--ebpf", mode)
    wait_for("the lane", lambda: all(REFLEX in peer["lanes"] for edge in edges for peer in edge.peers()))
    a, outside = pair_lan
    wanted = junk(live_datagram(lab, pair_lan), random.Random(seed))
    # Room for the largest datagram in one packet: a fragment is the network's business, not the program's.
    for host in pair_lan:
        host.namespace.ip("link", "set", "eth0", "mtu", "3000")
    before, status = drops(edges[0]), edges[0].status()
    log_before = edges[0].process.output()
    capture = Capture(lab, outside.namespace, "eth0", "silence", packet_filter="udp or icmp or icmp6")
    with outside.namespace.udp_socket("0.0.0.0", 40000) as sender:
        for _ in range(REPEATS):
            for _, datagram in wanted:
                sender.sendto(datagram, (str(a.address), PORT))
    expected = Counter(reason for reason, _ in wanted for _ in range(REPEATS))
    poll_until(lambda: (drops(edges[0]) - before).total() >= expected.total(), 20.0)
    assert drops(edges[0]) - before == expected
    back = [
        frame
        for frame in frames_of(capture.stop())
        if (found := udp_datagram(frame)) is None or (found.source == a.address and found.destination_port != PORT)
    ]
    assert back == [], "nothing comes back"
    assert edges[0].process.output() == log_before, "and nothing is logged"
    assert edges[0].status()["handshakes_completed"] == status["handshakes_completed"]
    assert ping(outside.namespace, str(PAIR_VIPS[0]), 5).loss == 0, "the session goes on"


def test_who_forges_a_members_address_does_not_lock_it_out(lab: Lab, pair_lan: tuple[Host, Host], seed: int) -> None:
    """Initiations with a valid mac1 from the member's own endpoint, before, while and after it starts anew."""
    pair = Pair(lab, pair_lan)
    pair.start_a("--vip", str(PAIR_VIPS[0])).wait_ready()
    pair.start_b("--vip", str(PAIR_VIPS[1])).wait_ready()
    for edge in (pair.a, pair.b):
        edge.wait_for_peer()
    key = base64.b64decode(pair.a.ask("identity")["wireguard_public_key"])
    flood = Flood(pair_lan, key, random.Random(seed))
    flood.start()
    try:
        wait_for("Ganglion under load", lambda: drops(pair.a)["under_load"] > 0)
        pair.b.process.kill()
        pair.start_b("--vip", str(PAIR_VIPS[1])).wait_ready()
        pair.b.wait_for_peer(60.0)
        wait_for("a ping", lambda: ping(pair_lan[1].namespace, str(PAIR_VIPS[0]), 1).loss == 0)
        assert flood.is_alive() and drops(pair.a)["rate_limited"] > 0
        assert "event_overflow" not in drops(pair.a), "the core's queue was never full"
    finally:
        flood.finish()


class Flood(threading.Thread):
    """Initiations for A's key that pretend to come from B's endpoint, until `finish`."""

    def __init__(self, hosts: tuple[Host, Host], key: bytes, dice: random.Random) -> None:
        super().__init__()
        a, b = hosts
        self._wire = b.namespace.packet_socket("eth0")
        with a.namespace.packet_socket("eth0") as other:
            ethernet = other.getsockname()[4] + self._wire.getsockname()[4]
        header = struct.pack(">BBHHHBBH", 0x45, 0, 176, 0, 0x4000, 64, 17, 0) + b.address.packed + a.address.packed
        header = header[:10] + internet_checksum(header).to_bytes(2, "big") + header[12:]
        outer = ethernet + b"\x08\0" + header + struct.pack(">HHHH", PORT, PORT, 156, 0)
        self._frames = [outer + with_macs(key, b"\x01\0\0\0" + dice.randbytes(144), None) for _ in range(50)]
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            for frame in self._frames:
                self._wire.send(frame)
            time.sleep(len(self._frames) / FLOOD)

    def finish(self) -> None:
        self._over.set()
        self.join()
        self._wire.close()
