"""Queues of the native engine, without the kernel's lane: which frame takes which, streams that arrive whole."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from omninervous._native import hardware_aes
from omninervous.lab.capture import Capture, frames_of, udp_datagram
from omninervous.lab.daemons import PAIR_VIPS, Daemon, start_pair
from omninervous.lab.namespaces import Lab
from omninervous.lab.topology import Host
from tests.netns.edges import ping, wait_for

EXPRESS = 7
STREAMS = 8
STREAM_SIZE = 4 << 20
NUMBERED = 5000
"""Datagrams of the flow whose order is looked at."""
_TRANSPORT = 4
_HEADERS = 14 + 20 + 8
"""Ethernet, IPv4, UDP: a captured super-frame holds several datagrams of one size behind one header."""


def started(lab: Lab, hosts: tuple[Host, Host], *arguments: str) -> tuple[Daemon, Daemon]:
    edges = start_pair(lab, hosts, "--ebpf", "off", *arguments)
    for edge in edges:
        edge.wait_for_peer()
    wait_for("lanes", lambda: all(len(edge.peers()[0]["lanes"]) > 1 for edge in edges))
    return edges


def lanes_from(path: Path, source: Host) -> Counter[int]:
    """Lanes of the transport messages that a host sent, by the frames that they came in."""
    seen: Counter[int] = Counter()
    for frame in frames_of(path):
        datagram = udp_datagram(frame)
        if datagram is not None and datagram.source == source.address and datagram.payload[:1] == bytes([_TRANSPORT]):
            seen[datagram.payload[15] >> 4] += 1
    return seen


def key_counters(path: Path, source: Host) -> list[tuple[bytes, int]]:
    """Receiver index, which stands for the session's keys, and counter, whose top bits are the lane, of every transport
    message that a host sent; all were captured one by one."""
    found = []
    for frame in frames_of(path):
        datagram = udp_datagram(frame)
        if datagram is not None and datagram.source == source.address and datagram.payload[:1] == bytes([_TRANSPORT]):
            found.append((datagram.payload[4:8], int.from_bytes(datagram.payload[8:16], "little")))
    return found


def numbered(hosts: tuple[Host, Host], port: int) -> list[int]:
    """Send numbered datagrams of one UDP flow as fast as it goes; the numbers that arrived, in that order."""
    target = (str(PAIR_VIPS[1]), port)
    arrived: list[int] = []
    with hosts[1].namespace.udp_socket(*target) as there, hosts[0].namespace.udp_socket() as here:
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        there.settimeout(5.0)
        here.settimeout(5.0)
        for number in range(NUMBERED):
            here.sendto(number.to_bytes(4, "big"), target)
        with contextlib.suppress(TimeoutError):
            while not arrived or arrived[-1] != NUMBERED - 1:
                arrived.append(int.from_bytes(there.recv(64), "big"))
    return arrived


def kernel_counter(host: Host, name: str) -> int:
    """One of TcpExt in /proc/net/netstat: a line of names, a line of numbers."""
    lines = [line.split() for line in host.namespace.run("cat", "/proc/net/netstat").stdout.splitlines()]
    names, numbers = (line for line in lines if line[0] == "TcpExt:")
    return int(dict(zip(names, numbers, strict=True))[name])


def stream(hosts: tuple[Host, Host], port: int, seed: int, way: int) -> bool:
    """Send a few megabytes over TCP from one edge to the other; whether exactly those arrived."""
    data = random.Random(seed).randbytes(STREAM_SIZE)
    source, target = hosts[way].namespace, hosts[1 - way].namespace
    listener = target.call(lambda: socket.create_server((str(PAIR_VIPS[1 - way]), port)))
    client = source.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    arrived = hashlib.sha256()
    with listener, client, ThreadPoolExecutor(1) as pool:
        client.settimeout(60)
        client.connect(listener.getsockname())
        server, _ = listener.accept()

        def send() -> None:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)

        sending = pool.submit(send)
        with server:
            server.settimeout(60)
            while piece := server.recv(1 << 18):
                arrived.update(piece)
        sending.result()
    return arrived.digest() == hashlib.sha256(data).digest()


def test_a_stream_is_bulk_and_all_else_is_express(lab: Lab, pair_lan: tuple[Host, Host], seed: int) -> None:
    edges = started(lab, pair_lan)
    assert edges[0].status()["queues"] == {"bulk": 1, "express": True, "reason": None}
    assert edges[0].peers()[0]["lanes"] == [0, 1, EXPRESS]
    a, b = pair_lan

    capture = Capture(lab, a.namespace, "eth0", "ping", packet_filter="udp", snap=128)
    assert ping(a.namespace, str(PAIR_VIPS[1]), 10).loss == 0
    seen = lanes_from(capture.stop(), a)
    assert seen[EXPRESS] >= 10 and seen[1] == 0

    capture = Capture(lab, a.namespace, "eth0", "stream", packet_filter="udp", snap=128)
    assert stream(pair_lan, 7000, seed, 0)
    path = capture.stop()
    sent, answered = lanes_from(path, a), lanes_from(path, b)
    assert sent[1] >= STREAM_SIZE / 65536, "data in super-frames"
    assert answered[EXPRESS] > answered[1], "B has acknowledgements to send, and no data"


@pytest.mark.parametrize("queues", [1, 2, 4])
def test_streams_arrive_whole_whatever_the_number_of_queues(
    lab: Lab, pair_lan: tuple[Host, Host], queues: int, seed: int
) -> None:
    edges = started(lab, pair_lan, "--queues", str(queues))
    assert edges[0].peers()[0]["lanes"] == [0, *range(1, queues + 1), EXPRESS]
    for host in pair_lan:  # every datagram by itself, so that each one's counter is in the capture
        host.namespace.run("ethtool", "-K", "eth0", "tx-udp-segmentation", "off")
    captures = [Capture(lab, host.namespace, "eth0", f"streams-{host.namespace.role}", snap=64) for host in pair_lan]
    with ThreadPoolExecutor(STREAMS + 1) as pool:
        streams = [pool.submit(stream, pair_lan, 7000 + n, seed + n, n % 2) for n in range(STREAMS)]
        order = pool.submit(numbered, pair_lan, 8000)
        assert ping(pair_lan[0].namespace, str(PAIR_VIPS[1]), 10).loss == 0
        assert all(each.result() for each in streams)
    used = set()
    for host, capture in zip(pair_lan, captures, strict=True):
        pairs = key_counters(capture.stop(), host)
        assert len(pairs) > STREAMS * STREAM_SIZE / 2 / 1400 and len(set(pairs)) == len(pairs), "a pair was repeated"
        used |= {counter >> 60 for _, counter in pairs}
    assert used <= {0, *range(1, queues + 1), EXPRESS} and len(used - {0, EXPRESS}) > (queues > 1)
    arrived = order.result()
    assert arrived == sorted(arrived) and len(arrived) > NUMBERED / 10, "one flow stays in one queue"
    for host in pair_lan:
        assert not any(kernel_counter(host, name) for name in ("TCPSACKReorder", "TCPTSReorder", "TCPRenoReorder"))
    for edge in edges:
        drops = edge.status()["drops"]
        assert not {"replay", "bad_tag", "lane", "counter_limit"} & drops.keys(), drops


@pytest.mark.parametrize("other", [("--queues", "3"), ("--engine", "reference")])
def test_edges_with_other_queues_meet(lab: Lab, pair_lan: tuple[Host, Host], other: tuple[str, ...], seed: int) -> None:
    first, second = (Daemon(lab, host.namespace, name) for host, name in zip(pair_lan, "ab", strict=True))
    keys = first.init(), second.init()
    port = "51820"
    usual = ("--ebpf", "off", "--vip", str(PAIR_VIPS[0]))
    first.launch("--peer", keys[1], "--endpoint", f"{pair_lan[1].address}:{port}", *usual)
    second.launch("--peer", keys[0], "--endpoint", f"{pair_lan[0].address}:{port}", "--vip", str(PAIR_VIPS[1]), *other)
    for edge in (first, second):
        edge.wait_ready()
        edge.wait_for_peer()
    assert stream(pair_lan, 7000, seed, 0) and stream(pair_lan, 7001, seed, 1)


def test_without_ebpf_one_queue_carries_everything(lab: Lab, pair_lan: tuple[Host, Host], seed: int) -> None:
    plain = ["setpriv", "--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all"]
    edges = start_pair(lab, pair_lan, prefix=plain)
    for edge in edges:
        edge.wait_for_peer()
    queues = edges[0].status()["queues"]
    assert queues["bulk"] == 1 and queues["express"] is False and "CAP_BPF" in queues["reason"]
    wait_for("the bulk lane", lambda: edges[0].peers()[0]["lanes"] == [0, 1])
    assert stream(pair_lan, 7000, seed, 0)


def test_a_second_daemon_cannot_join_the_port(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    host = pair_lan[0].namespace
    Daemon(lab, host, "first").launch().wait_ready()
    second = Daemon(lab, host, "second").launch("--dev", "omni1")
    assert second.process.wait(10) == 2
    assert "51820 is in use by" in second.process.tail()


@pytest.mark.parametrize(
    ("mine", "yours", "lanes", "aead"),
    [
        ("chacha", "auto", [0, 1, EXPRESS], "chacha20-poly1305"),
        ("aes", "auto", [0, 1, EXPRESS], "aes-256-gcm"),
        ("aes", "chacha", [0], "chacha20-poly1305"),
    ],
)
def test_the_cipher_can_be_forced(
    lab: Lab, pair_lan: tuple[Host, Host], mine: str, yours: str, lanes: list[int], aead: str, seed: int
) -> None:
    if not hardware_aes() and mine == "aes":
        refused = Daemon(lab, pair_lan[0].namespace, "a").launch("--aead", "aes")
        assert refused.process.wait(10) == 2 and "--aead aes" in refused.process.tail()
        return
    edges = tuple(Daemon(lab, host.namespace, name) for host, name in zip(pair_lan, "ab", strict=True))
    keys = [edge.init() for edge in edges]
    for number, choice in enumerate((mine, yours)):
        endpoint = f"{pair_lan[1 - number].address}:51820"
        given = ("--peer", keys[1 - number], "--endpoint", endpoint, "--vip", str(PAIR_VIPS[number]))
        edges[number].launch(*given, "--ebpf", "off", "--aead", choice)
    for edge in edges:
        edge.wait_ready()
    wait_for("the lanes", lambda: all([each["lanes"] for each in edge.peers()] == [lanes] for edge in edges))
    assert [edge.peers()[0]["aead"] for edge in edges] == [aead, aead]
    assert stream(pair_lan, 7000, seed, 0)
