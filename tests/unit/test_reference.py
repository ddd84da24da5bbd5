"""The reference engine as a Synapse: threads, descriptors, and what the environment does to them."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from collections.abc import Generator

import pytest

from omninervous.core.dataplane import (
    DatagramReceived,
    FrameUnresolved,
    RemoveSession,
    SendDatagram,
    SessionConfirmed,
    SetEndpoint,
    UnderlayError,
)
from omninervous.errors import SystemFailure
from omninervous.synapse.port import Synapse
from omninervous.synapse.reference import BATCH, TAP_ENDPOINT, ReferenceEngine
from omninervous.wire.address import Endpoint
from omninervous.wire.frame import build_ethernet
from tests.datapaths import twins, udp_frame
from tests.engines import EngineOnLoopback, wait_until

Pair = tuple[EngineOnLoopback, EngineOnLoopback]


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest) -> Generator[Pair, None, None]:
    one, two = twins()
    with EngineOnLoopback(one, request.param) as a, EngineOnLoopback(two, request.param) as b:
        a.engine.submit([*one.introduce(two), SetEndpoint(two.id, b.endpoint)])
        b.engine.submit([*two.introduce(one), SetEndpoint(one.id, a.endpoint)])
        yield a, b


@pytest.fixture
def alone() -> Generator[EngineOnLoopback, None, None]:
    with EngineOnLoopback(twins()[0]) as engine:
        yield engine


def test_it_fulfils_the_port(alone: EngineOnLoopback) -> None:
    engine: Synapse = alone.engine
    assert engine.name == "reference"


def test_frames_cross_between_two_engines(pair: Pair) -> None:
    a, b = pair
    for number in range(100):
        frame = udp_frame(a.side, b.side, bytes([number]) * 100)
        a.stack.send(frame)
        assert b.stack.recv(2000) == frame
        back = udp_frame(b.side, a.side, bytes([number]))
        b.stack.send(back)
        assert a.stack.recv(2000) == back
    assert b.engine.learned().keys() == {a.side.mac}
    (activity,) = b.engine.activity()
    assert (activity.rx_packets, activity.tx_packets) == (100, 100)


def test_events_make_the_descriptor_readable_until_taken(pair: Pair) -> None:
    a, b = pair
    a.stack.send(udp_frame(a.side, b.side))
    b.stack.recv(2000)
    assert b.next_events() == [SessionConfirmed(a.side.id, b.side.index, a.endpoint)]
    assert list(b.engine.events()) == []
    assert not _readable(b.engine)


def test_slow_path_messages_go_to_the_core_and_come_from_it(pair: Pair) -> None:
    a, b = pair
    initiation = b"\x01\0\0\0".ljust(148, b"i")
    a.engine.submit([SendDatagram(b.endpoint, initiation)])
    assert b.next_events() == [DatagramReceived(a.endpoint, initiation)]


def test_more_than_a_batch_at_once_leaves_nothing_behind(pair: Pair) -> None:
    a, b = pair
    count = 3 * BATCH  # few enough for a socket's default buffer, should the engines not get to run
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.extend(b.stack.recv(2000) for _ in range(count)))
    reader.start()
    frames = [udp_frame(a.side, b.side, number.to_bytes(2, "big")) for number in range(count)]
    for frame in frames:
        a.stack.send(frame)
    reader.join()
    assert received == frames


def test_submit_takes_effect_at_once_even_under_load(pair: Pair) -> None:
    a, b = pair
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            a.stack.send(udp_frame(a.side, b.side))

    thread = threading.Thread(target=flood)
    thread.start()
    a.wait_for("tx_packets", 100)
    a.engine.submit([RemoveSession(a.side.index)])
    assert list(a.engine.activity()) == []
    sent = a.counter("tx_packets")
    a.wait_for("drop_no_session")
    assert a.counter("tx_packets") == sent
    stop.set()
    thread.join()


def test_an_unreachable_endpoint_is_an_event_and_no_more(alone: EngineOnLoopback) -> None:
    # From a socket bound to loopback, everything else is unreachable.
    nowhere = Endpoint("192.0.2.1", 9)
    alone.engine.submit([SendDatagram(nowhere, b"x"), SendDatagram(nowhere, b"x")])
    (event,) = alone.next_events()
    assert isinstance(event, UnderlayError)
    assert event.endpoint == nowhere
    assert alone.counter("drop_underlay_error") == 2


def test_no_socket_of_a_family_is_counted(alone: EngineOnLoopback) -> None:
    alone.engine.submit([SendDatagram(Endpoint("::1", 9), b"x")])
    assert alone.counter("drop_no_socket") == 1


def test_a_datagram_beyond_udp_is_too_big(alone: EngineOnLoopback) -> None:
    alone.engine.submit([SendDatagram(alone.endpoint, bytes(65508))])
    assert alone.counter("drop_too_big") == 1


def test_a_refused_port_does_not_stop_the_socket(pair: Pair) -> None:
    a, b = pair
    gone = socket.socket(b.udp.family, socket.SOCK_DGRAM)
    gone.bind((b.endpoint.host, 0))
    port = gone.getsockname()[1]
    gone.close()
    a.udp.connect((b.endpoint.host, port))  # a connected socket is told of ECONNREFUSED
    for _ in range(3):
        a.engine.submit([SendDatagram(Endpoint(b.endpoint.host, port), b"x")])
    a.wait_for("drop_underlay_receive")
    a.udp.connect(b.endpoint)
    frame = udp_frame(b.side, a.side)
    b.stack.send(frame)
    assert a.stack.recv(2000) == frame


def test_a_tap_that_fails_is_left_alone_told_and_tried_again() -> None:
    reader, broken = os.pipe()  # a write end without reader: poll says "ready", every read says EBADF
    os.close(reader)
    now = 100.0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        engine = ReferenceEngine(broken, [udp], twins()[0].mac, 1380, clock=lambda: now)

        def work() -> int:
            """Give the thread something to do; what it counted meanwhile."""
            done = engine.counters().get("drop_bad_type", 0)
            engine.submit([SendDatagram(Endpoint(*udp.getsockname()), b"noise")])
            wait_until(lambda: engine.counters().get("drop_bad_type", 0) > done, "the datagram came")
            return engine.counters()["drop_tap_read"]

        assert [work() for _ in range(10)][-1] == 1, "no busy loop"
        assert list(engine.events()) == [UnderlayError(TAP_ENDPOINT, errno.EBADF)]
        now = 101.0
        work()
        wait_until(lambda: engine.counters()["drop_tap_read"] == 2, "it was tried again")
        engine.close()
    os.close(broken)


def test_unresolved_frames_reach_the_core(alone: EngineOnLoopback) -> None:
    frame = build_ethernet(bytes([2, 9, 9, 9, 9, 9]), alone.side.mac, 0x88B5, b"?")
    alone.stack.send(frame)
    assert alone.next_events() == [FrameUnresolved(frame)]


def test_closing_ends_the_thread_and_leaves_the_descriptors_to_their_owner(alone: EngineOnLoopback) -> None:
    engine = alone.engine
    thread = engine._thread
    engine.close()
    engine.close()
    assert not thread.is_alive()
    assert engine.fileno() == -1
    engine.submit([SendDatagram(alone.endpoint, b"x")])
    assert (list(engine.events()), list(engine.activity())) == ([], [])
    os.fstat(alone.tap.fileno())
    alone.udp.getsockname()


def test_a_bug_in_the_thread_is_not_silent(alone: EngineOnLoopback) -> None:
    hooked: list[object] = []
    before = threading.excepthook
    threading.excepthook = hooked.append
    try:
        alone.engine._datapath.from_tap = None  # type: ignore[method-assign,assignment]
        alone.stack.send(b"frame")
        alone.engine._thread.join()
    finally:
        threading.excepthook = before
    with pytest.raises(SystemFailure):
        alone.next_events()
    assert len(hooked) == 1


def _readable(engine: ReferenceEngine) -> bool:
    return bool(select.select([engine], [], [], 0)[0])
