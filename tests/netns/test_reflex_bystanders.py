"""The host's other traffic does not notice the programs: what is not for our port and address passes bit for bit."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from omninervous.lab.daemons import Daemon
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.topology import Host
from tests.netns.edges import wait_for

PORT = 51820
MODES = ["tc", "xdp"]
_ETH_P_ALL = 3


@pytest.fixture(params=MODES)
def host(request: pytest.FixtureRequest, lab: Lab, pair_lan: tuple[Host, Host]) -> Host:
    """Machine A with a daemon; B is somebody else."""
    edge = Daemon(lab, pair_lan[0].namespace, "edge").launch("--ebpf", request.param).wait_ready()
    assert {"name": "eth0", "mechanism": request.param} in edge.status()["reflex"]["interfaces"]
    return pair_lan[0]


def carried(sender: Namespace, receiver: Namespace, address: str, port: int, data: bytes) -> bytes:
    """What a UDP socket at the receiver gets of a datagram."""
    with receiver.udp_socket(address, port) as sink, sender.udp_socket("::" if ":" in address else "0.0.0.0") as source:
        sink.settimeout(10)
        source.sendto(data, (address, port))
        return sink.recv(65536)


def test_datagrams_of_other_ports_fragments_and_both_families_arrive(host: Host, pair_lan: tuple[Host, Host]) -> None:
    outside = pair_lan[1].namespace
    assert host.address6 is not None
    for address in (str(host.address), str(host.address6)):
        for size in (0, 1, 32, 148, 1400, 9000):  # the last in fragments
            data = (b"\x04\0\0\0" + os.urandom(size))[:size]
            assert carried(outside, host.namespace, address, PORT + 1, data) == data
        data = os.urandom(500)
        assert carried(host.namespace, host.namespace, address, PORT + 1, data) == data, "over loopback"


def test_pings_of_all_sizes_and_a_tcp_stream_pass(host: Host, pair_lan: tuple[Host, Host]) -> None:
    outside = pair_lan[1].namespace
    for address in (str(host.address), str(host.address6)):
        for size in ("0", "56", "1472", "9000"):
            done = outside.run("ping", "-c", "3", "-i", "0.2", "-s", size, "-W", "5", address)
            assert "3 received" in done.stdout
    data = os.urandom(4 << 20)
    with host.namespace.call(lambda: socket.create_server((str(host.address), PORT))) as listener:
        client = outside.call(lambda: socket.create_connection((str(host.address), PORT), 10))
        server, _ = listener.accept()
        with client, server:
            client.settimeout(20)
            sent = outside.call(lambda: client.sendmsg([data[: 1 << 16]]))
            assert server.recv(sent, socket.MSG_WAITALL) == data[:sent], "TCP with our port's number is not ours"


def test_tagged_and_unknown_frames_pass(host: Host, pair_lan: tuple[Host, Host]) -> None:
    """An AF_PACKET socket stands behind XDP, and before tc, whose verdicts the other tests of this file show."""
    a, b = host.namespace, pair_lan[1].namespace
    mac = bytes.fromhex(a.ip("-br", "link", "show", "eth0").split()[2].replace(":", ""))
    datagram = struct.pack("!HHHH", 9, PORT, 40, 0) + os.urandom(32)
    packet = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0) + bytes(8) + datagram
    frames = [
        mac + bytes([2, 0, 0, 0, 0, 9]) + kind + os.urandom(60)
        for kind in (b"\x88\xb5", b"\x81\x00\x00\x05\x88\xb5", b"\x88\xa8\x00\x05\x81\x00\x00\x06\x86\xdd", b"\x08\x06")
    ]
    frames.append(mac + bytes([2, 0, 0, 0, 0, 9]) + b"\x08\x00" + packet[:28])  # cut short
    frames.append(mac + bytes([2, 0, 0, 0, 0, 9]) + b"\x08\x00" + packet)  # for our port at somebody else's address
    with a.packet_socket("eth0") as receiver, b.packet_socket("eth0") as sender:
        receiver.settimeout(10)
        for frame in frames:
            sender.send(frame)
            while not receiver.recv(2000).endswith(frame[-28:]):
                pass


def test_a_router_forwards_our_port_for_others(host: Host, lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    behind = lab.namespace("behind")
    host.namespace.ip("link", "add", "eth1", "type", "veth", "peer", "name", "eth0", "netns", behind.name)
    host.namespace.ip_batch("address add 10.78.0.1/24 dev eth1", "link set eth1 up")
    host.namespace.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    behind.ip_batch("address add 10.78.0.2/24 dev eth0", "link set eth0 up", "route add default via 10.78.0.1")
    outside = pair_lan[1].namespace
    outside.ip("route", "add", "10.78.0.0/24", "via", str(host.address))
    wait_for(
        "the way", lambda: "1 received" in outside.run("ping", "-c", "1", "-W", "1", "10.78.0.2", check=False).stdout
    )
    for data in (b"\x04\0\0\0" + os.urandom(60), b"\x01\0\0\0" + os.urandom(144), os.urandom(9)):
        assert carried(outside, behind, "10.78.0.2", PORT, data) == data
        assert carried(behind, outside, str(pair_lan[1].address), PORT, data) == data
