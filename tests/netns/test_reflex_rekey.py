"""Rekeys under load on both lanes: no datagram of the kernel's lane is lost or overtaken, no counter comes twice."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Generator

import pytest

from omninervous.core.dataplane import RemoveSession
from omninervous.lab.capture import Capture, frames_of, udp_datagram
from omninervous.lab.namespaces import Lab
from omninervous.lab.topology import Host
from tests.netns.kernel_edges import KernelEdge, Session
from tests.netns.test_queues import stream

REFLEX = 8
REKEYS = 40
PAUSE = 0.02
SO_RCVBUFFORCE = 33
"""<asm-generic/socket.h>"""
_SEQUENCE = struct.Struct("!I")


@pytest.fixture(params=["tc", "xdp"])
def edges(request: pytest.FixtureRequest, pair_lan: tuple[Host, Host]) -> Generator[list[KernelEdge], None, None]:
    made: list[KernelEdge] = []
    try:
        for number, host in enumerate(pair_lan, start=1):
            made.append(KernelEdge(host, number, request.param))
        for each, other in (made, reversed(made)):
            each.meet(other)
        yield made
    finally:
        for each in made:
            each.close()


def rekey(edges: list[KernelEdge], session: Session, old: Session | None) -> None:
    """As two cores do it: keys on both sides, then the choice, then CAPS and their acknowledgements cross."""
    for way in (0, 1):
        edges[way].submit(session.install(way))
    for way in (0, 1):
        edges[way].submit(session.select(way))
    for way in (0, 1):
        edges[way].submit(session.open(way))
    for way in (0, 1):
        time.sleep(PAUSE)
        edges[way].submit(session.agree(way))
    time.sleep(PAUSE)
    if old is not None:
        for way in (0, 1):
            edges[way].submit(RemoveSession(old.indices[way]))


class Flow:
    """Numbered datagrams from one machine to the other, as fast as Python sends them."""

    def __init__(self, edges: list[KernelEdge], way: int) -> None:
        sender, receiver = edges[way], edges[1 - way]
        self._target = (str(receiver.vip), 9000)
        self._receiver = receiver.host.namespace.udp_socket(*self._target)
        self._receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        self._sender = sender.host.namespace.udp_socket(str(sender.vip))
        self._stop = threading.Event()
        self.sent = 0
        self.seen: list[int] = []
        self._threads = [threading.Thread(target=each) for each in (self._send, self._receive)]

    def start(self) -> None:
        for each in self._threads:
            each.start()

    def finish(self) -> None:
        self._stop.set()
        for each in self._threads:
            each.join()
        self._sender.close()
        self._receiver.close()

    def _send(self) -> None:
        while not self._stop.is_set():
            self._sender.sendto(_SEQUENCE.pack(self.sent).ljust(100, b"."), self._target)
            self.sent += 1
            time.sleep(0)

    def _receive(self) -> None:
        self._receiver.settimeout(2.0)
        try:
            while True:
                self.seen.append(_SEQUENCE.unpack_from(self._receiver.recv(2048))[0])
        except TimeoutError:
            return


@pytest.mark.timeout(240)
def test_nothing_is_lost_or_overtaken_while_keys_change(
    lab: Lab, pair_lan: tuple[Host, Host], edges: list[KernelEdge], seed: int
) -> None:
    dice = random.Random(seed)
    current = Session(edges, 0, dice)
    rekey(edges, current, None)
    capture = Capture(lab, pair_lan[0].namespace, "eth0", "rekey", packet_filter="udp", snap=80)
    flows = [Flow(edges, way) for way in (0, 1)]
    bulk: list[bool] = []
    beside = threading.Thread(target=lambda: bulk.append(stream(pair_lan, 7000, seed, 0)))
    beside.start()
    for flow in flows:
        flow.start()
    for number in range(1, REKEYS + 1):
        old, current = current, Session(edges, number, dice)
        rekey(edges, current, old)
    for flow in flows:
        flow.finish()
    beside.join()
    assert bulk == [True], "a TCP stream arrives whole"
    for flow in flows:
        assert flow.sent > REKEYS
        assert flow.seen == list(range(flow.sent)), f"{len(flow.seen)} of {flow.sent} arrived"
    counters = seen_counters(capture, pair_lan)
    assert len(counters) == len(set(counters)), "a (key, counter) pair was used twice"
    assert len({index for _, index, _ in counters}) > REKEYS


def seen_counters(capture: Capture, hosts: tuple[Host, Host]) -> list[tuple[object, int, int]]:
    """Sender, receiver index and counter of every datagram of the kernel's lane."""
    found: list[tuple[object, int, int]] = []
    for frame in frames_of(capture.stop()):
        datagram = udp_datagram(frame)
        if datagram is None or len(datagram.payload) < 16 or datagram.payload[0] != 4:
            continue
        index, counter = struct.unpack_from("<IQ", datagram.payload, 4)
        if counter >> 60 == REFLEX:
            found.append((datagram.source, index, counter))
    return found
