"""omni0 is an Ethernet segment: whatever has an Ethernet header crosses it."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack

from omninervous.lab.daemons import Daemon, start_pair
from omninervous.lab.evidence import parse_ping
from omninervous.lab.namespaces import Lab
from omninervous.lab.topology import Host
from tests.netns.edges import wait_for

EXPERIMENTAL = 0x88B5
"""IEEE 802 local experimental ethertype 1."""
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 263, 8, 1 << 4
"""<linux/if_packet.h>"""
BROADCAST = b"\xff" * 6


def mac_of(edge: Daemon) -> bytes:
    return bytes.fromhex(edge.status()["interface"]["mac"].replace(":", ""))


def receive(sock: socket.socket, text: bytes) -> bytes:
    """The next frame with that text, as it was on the segment; other traffic passes by."""
    while True:
        frame, ancillary, _, _ = sock.recvmsg(4096, 128)
        if text in frame:
            return restore_tag(frame, ancillary)


def restore_tag(frame: bytes, ancillary: list[tuple[int, int, bytes]]) -> bytes:
    """The kernel takes the outer VLAN tag off and hands it over beside the frame: put it back (packet(7))."""
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tag, protocol = struct.unpack("=IIIHHHH", data)
            if status & TP_STATUS_VLAN_VALID:
                return frame[:12] + struct.pack("!HH", protocol, tag) + frame[12:]
    return frame


def test_raw_tagged_and_broadcast_frames_cross_unchanged(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    a, b = pair_lan
    edges = start_pair(lab, pair_lan)
    for edge in edges:
        edge.wait_for_peer()
    mac_a, mac_b = (mac_of(edge) for edge in edges)
    vlan = struct.pack("!HH", 0x8100, 42)
    frames = {
        "unicast": mac_b + mac_a + struct.pack("!H", EXPERIMENTAL) + b"unicast " + bytes(range(200)),
        "broadcast": BROADCAST + mac_a + struct.pack("!H", EXPERIMENTAL) + b"broadcast " + bytes(50),
        "tagged": mac_b + mac_a + vlan + struct.pack("!H", EXPERIMENTAL) + b"tagged " + bytes(50),
        "tagged twice": mac_b + mac_a + struct.pack("!HH", 0x88A8, 7) + vlan + b"\x88\xb5tagged twice " + bytes(50),
        "full size": mac_b + mac_a + struct.pack("!H", EXPERIMENTAL) + b"full size".ljust(1380, b"."),
    }
    with ExitStack() as stack:
        sender = stack.enter_context(a.namespace.packet_socket("omni0"))
        receiver = stack.enter_context(b.namespace.packet_socket("omni0"))
        receiver.settimeout(5)
        receiver.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        for name, frame in frames.items():
            sender.send(frame)
            assert receive(receiver, name.encode()) == frame, name


def test_a_foreign_source_mac_is_not_let_in(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    a, b = pair_lan
    edges = start_pair(lab, pair_lan)
    for edge in edges:
        edge.wait_for_peer()
    mac_a, mac_b = (mac_of(edge) for edge in edges)
    forged = bytes.fromhex("020000000bad")
    with a.namespace.packet_socket("omni0") as sender, b.namespace.packet_socket("omni0") as receiver:
        receiver.settimeout(5)
        for source, text in ((forged, b"forged test frame"), (mac_a, b"honest test frame")):
            sender.send(mac_b + source + struct.pack("!H", EXPERIMENTAL) + text.ljust(50))
        assert b"honest" in receive(receiver, b"test frame")


def test_the_ula_and_the_vip_answer_pings(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    a, _ = pair_lan
    edges = start_pair(lab, pair_lan)
    for edge in edges:
        edge.wait_for_peer()
    # A session is up before the peer has said who it is.
    listed = wait_for("the peer's addresses", lambda: next((each for each in edges[0].peers() if each["vip"]), None))
    for address in (listed["vip"], listed["ula"]):
        done = a.namespace.run("ping", "-c", "5", "-i", "0.1", "-W", "1", str(address), check=False)
        assert parse_ping(done.stdout).received >= 4, done.stdout
