"""The reflex lane between two machines, by its programs alone: nobody reads the TAPs, so frames came by the kernel."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Generator
from itertools import pairwise

import pytest

from omninervous.lab.capture import udp_datagram
from omninervous.lab.topology import Host
from tests.netns.edges import all_answered
from tests.netns.reflex_ends import ReflexEnd, connect

Ends = Callable[..., tuple[ReflexEnd, ReflexEnd]]
LANE = 8
EACH = 10_000
"""Datagrams of a sender. All of them wait in the capturing socket until the test reads it."""
SO_RCVBUFFORCE = 33
"""<asm-generic/socket.h>"""


@pytest.fixture
def ends(pair_lan: tuple[Host, Host]) -> Generator[Ends, None, None]:
    """Makes two connected ends, for a mechanism and an IP version of the underlay."""
    made: list[ReflexEnd] = []

    def make(mechanism: str = "tc", *, v6: bool = False) -> tuple[ReflexEnd, ReflexEnd]:
        made.extend(ReflexEnd.create(host, number, mechanism) for number, host in enumerate(pair_lan, 1))
        connect(made[0], made[1], v6=v6)
        return made[0], made[1]

    yield make
    for end in made:
        end.close()


@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("mechanism", ["tc", "xdp"])
def test_both_ip_versions_pass_by_every_mechanism(ends: Ends, mechanism: str, v6: bool) -> None:
    a, _ = ends(mechanism, v6=v6)
    for size in (0, 8, 56, 512, 1252):
        all_answered(a.host.namespace, "10.200.0.2", 3, "-i", "0.01", "-s", str(size))
    all_answered(a.host.namespace, "fd00::2", 3, "-i", "0.01", "-s", "1232")
    assert a.counter("tx_packets") >= 18
    assert a.counter("rx_packets") >= 18


def test_no_counter_comes_twice_when_every_cpu_sends(ends: Ends, pair_lan: tuple[Host, Host]) -> None:
    cpus = sorted(os.sched_getaffinity(0))[:2]
    assert len(cpus) > 1, "this test needs two CPUs"
    with pair_lan[0].namespace.packet_socket("eth0") as wire:
        wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 28)
        a, b = ends()
        begin = threading.Barrier(len(cpus))
        senders = [threading.Thread(target=send_from, args=(a.host, cpu, begin)) for cpu in cpus]
        for each in senders:
            each.start()
        for each in senders:
            each.join()
        sent = sent_by(wire, a.host)
    sequences = [counter ^ LANE << 60 for counter, _ in sent if counter >> 60 == LANE]
    assert len(sequences) >= EACH * len(cpus)
    assert sorted(sequences) == list(range(len(sequences))), "each number once, none left out"
    turns = sum(one != other for (_, one), (_, other) in pairwise(sent))
    assert turns > EACH // 100, f"the CPUs took turns only {turns} times"
    assert b.counter("rx_packets") > 0 and b.counter("drop_replay") == 0


def send_from(host: Host, cpu: int, begin: threading.Barrier) -> None:
    """Datagrams whose size tells the CPU; this thread stays on it, and the program runs where it sends."""
    os.sched_setaffinity(0, {cpu})
    with host.namespace.udp_socket() as sender:
        begin.wait()
        for _ in range(EACH):
            sender.sendto(bytes(64 + cpu), ("10.200.0.2", 9))


def sent_by(wire: socket.socket, host: Host) -> list[tuple[int, int]]:
    """Counter and length of every transport message that left a machine, as they were on the wire."""
    wire.setblocking(False)
    found = []
    try:
        while True:
            datagram = udp_datagram(wire.recv(2048))
            if datagram and datagram.source == host.address and datagram.payload[:1] == b"\x04":
                found.append((struct.unpack_from("<Q", datagram.payload, 8)[0], len(datagram.payload)))
    except BlockingIOError:
        return found
