"""Whoever is not a member gets nothing: junk of every kind dies in the kernel, each by its reason, unanswered."""

from __future__ import annotations

import random
import struct
from collections import Counter

import pytest

from omninervous.lab.capture import Capture, frames_of, udp_datagram
from omninervous.lab.daemons import PAIR_VIPS, Daemon, start_pair
from omninervous.lab.namespaces import Lab
from omninervous.lab.process import poll_until
from omninervous.lab.topology import Host
from tests.netns.edges import ping, wait_for

PORT = 51820
REFLEX = 8
REPEATS = 20
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
