"""DSCP and ECN between the stack, the underlay and the other stack: both engines, both IP versions of the underlay.

::

    a: omni0 --engine-- eth0 [nftables marks congestion] ===== eth0 --engine-- omni0 :b
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from omninervous.lab.capture import Capture, frames_of
from omninervous.lab.daemons import PAIR_VIPS, Daemon
from omninervous.lab.namespaces import Lab
from omninervous.lab.topology import Host
from tests.netns.edges import wait_for
from tests.netns.test_queues import stream

PORT = 7300
DSCP = 0xB8
NOT_ECT, ECT0, CE = 0, 2, 3
WAIT = 5.0


def started(lab: Lab, hosts: tuple[Host, Host], engine: str, version: int) -> tuple[Daemon, Daemon]:
    edges = tuple(Daemon(lab, host.namespace, host.namespace.role) for host in hosts)
    keys = [edge.init() for edge in edges]
    for number, edge in enumerate(edges):
        other = hosts[1 - number]
        endpoint = f"{other.address}:51820" if version == 4 else f"[{other.address6}]:51820"
        peer = ("--peer", keys[1 - number], "--endpoint", endpoint, "--vip", str(PAIR_VIPS[number]))
        # What the kernel's lane sends passes no output hook, where congestion is marked here: test_reflex_programs.py.
        edge.launch(*peer, "--engine", engine, "--ebpf", "off")
    for edge in edges:
        edge.wait_ready()
        edge.wait_for_peer()
    return edges[0], edges[1]


def mark_congestion(host: Host) -> None:
    """From now on a queue on the way is full: what would be dropped is marked, whether it can be or not."""
    rules = "udp dport 51820 ip ecn set ce; udp dport 51820 ip6 ecn set ce;"
    host.namespace.nft(f"table inet full {{ chain out {{ type filter hook output priority 0; {rules} }}\n}}")


def arrives(hosts: tuple[Host, Host], tos: int) -> int | None:
    """The traffic class that a datagram with this one has in B's stack; None: it does not arrive."""
    listener = hosts[1].namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with listener, hosts[0].namespace.udp_socket() as sender:
        listener.settimeout(WAIT if tos & 3 else 0.5)
        listener.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        listener.bind((str(PAIR_VIPS[1]), PORT))
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
        sender.sendto(b"x" * 100, (str(PAIR_VIPS[1]), PORT))
        try:
            _, ancillary, _, _ = listener.recvmsg(200, 64)
        except TimeoutError:
            return None
    return int(ancillary[0][2][0])


def outer_classes(path: Path) -> set[int]:
    found = set()
    for frame in frames_of(path):
        if frame[12:14] == b"\x08\x00":
            found.add(frame[15])
        else:
            found.add(struct.unpack(">I", frame[14:18])[0] >> 20 & 0xFF)
    return found


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("version", [4, 6])
def test_the_class_goes_out_and_congestion_comes_back(
    lab: Lab, pair_lan: tuple[Host, Host], engine: str, version: int
) -> None:
    edges = started(lab, pair_lan, engine, version)
    capture = Capture(lab, pair_lan[0].namespace, "eth0", "classes", packet_filter="udp port 51820", snap=64)
    assert arrives(pair_lan, DSCP | ECT0) == DSCP | ECT0
    assert arrives(pair_lan, DSCP) == DSCP
    assert {DSCP | ECT0, DSCP} <= outer_classes(capture.stop())

    mark_congestion(pair_lan[0])
    assert arrives(pair_lan, DSCP | ECT0) == DSCP | CE
    assert arrives(pair_lan, DSCP | NOT_ECT) is None, "its sender would never know of the congestion"
    wait_for("the counter", lambda: edges[1].status()["drops"].get("ecn"))


def test_tcp_slows_down_for_a_mark_and_arrives_whole(lab: Lab, pair_lan: tuple[Host, Host], seed: int) -> None:
    for host in pair_lan:
        host.namespace.sysctl({"net.ipv4.tcp_ecn": 1})
    started(lab, pair_lan, "native", 4)
    # Every tenth: congestion now and then. The handshake's and pure acknowledgements' datagrams cannot be marked.
    rule = "udp dport 51820 ip ecn ect0 numgen inc mod 10 0 ip ecn set ce"
    pair_lan[0].namespace.nft(f"table ip full {{ chain out {{ type filter hook output priority 0; {rule}; }}\n}}")
    assert stream(pair_lan, PORT, seed, 0)
    assert delivered(pair_lan[1], "IpExt", "InCEPkts") > 0
    assert delivered(pair_lan[0], "TcpExt", "TCPDeliveredCE") > 0, "the sender has heard of it"


def delivered(host: Host, table: str, name: str) -> int:
    """A counter of /proc/net/netstat: a line of names, a line of numbers."""
    lines = [line.split() for line in host.namespace.run("cat", "/proc/net/netstat").stdout.splitlines()]
    names, numbers = (line for line in lines if line[0] == f"{table}:")
    return int(dict(zip(names, numbers, strict=True))[name])
