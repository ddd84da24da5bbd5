"""The bounded queue of events."""

from __future__ import annotations

from omninervous.core.dataplane import (
    ControlReceived,
    DatagramReceived,
    FrameUnresolved,
    FrameWithoutSession,
    SessionConfirmed,
    SourceChanged,
    UnderlayError,
)
from omninervous.core.event_queue import FRAMES_PER_PEER, SOURCES_PER_SESSION, UNRESOLVED_FRAMES, EventQueue
from omninervous.wire.address import Endpoint

PEER = b"p" * 32
SOURCE = Endpoint("192.0.2.1", 1)


def test_frames_give_way_first_then_strangers_then_members_and_confirmations_never() -> None:
    queue = EventQueue(capacity=8)
    assert [queue.put(FrameUnresolved(b"")) for _ in range(5)] == [""] * 4 + ["event_overflow"]
    assert [queue.put(DatagramReceived(SOURCE, b"")) for _ in range(3)] == [""] * 2 + ["event_overflow"]
    assert [queue.put(ControlReceived(PEER, 1, b"", SOURCE, 0)) for _ in range(3)] == [""] * 2 + ["event_overflow"]
    assert [queue.put(SessionConfirmed(PEER, 1, SOURCE)) for _ in range(3)] == [""] * 3


def test_taking_empties_the_queue_in_order() -> None:
    queue = EventQueue()
    queue.put(FrameUnresolved(b"1"))
    queue.put(FrameUnresolved(b"2"))
    assert queue.take() == [FrameUnresolved(b"1"), FrameUnresolved(b"2")]
    assert queue.take() == []


def test_frames_that_wait_for_a_session_are_limited_per_peer() -> None:
    queue = EventQueue()
    refusals = [queue.offer_waiting(0.0, PEER, b"f") for _ in range(FRAMES_PER_PEER + 1)]
    assert refusals == [""] * FRAMES_PER_PEER + ["no_session"]
    assert queue.offer_waiting(0.0, b"q" * 32, b"f") == ""
    assert queue.offer_waiting(1.0, PEER, b"f") == ""
    assert FrameWithoutSession(PEER, b"f") in queue.take()


def test_unresolved_frames_are_limited_in_all() -> None:
    queue = EventQueue()
    refusals = [queue.offer_unresolved(0.0, b"f") for _ in range(UNRESOLVED_FRAMES + 1)]
    assert refusals == [""] * UNRESOLVED_FRAMES + ["unresolved"]


def test_a_new_source_is_told_once_a_second_and_many_sources_a_few_times() -> None:
    queue = EventQueue()
    for now in (0.0, 0.5, 1.0):
        queue.offer_source(now, PEER, 7, SOURCE, 100)
    assert queue.take() == [SourceChanged(PEER, 7, SOURCE, 100)] * 2
    for port in range(1000):
        queue.offer_source(10.0, PEER, 7, Endpoint("192.0.2.2", 1 + port), 100)
    assert len(queue.take()) == SOURCES_PER_SESSION


def test_an_endpoint_that_fails_is_told_once_a_second() -> None:
    queue = EventQueue()
    for now in (0.0, 0.5, 1.0):
        queue.offer_error(now, SOURCE, 101)
    assert queue.take() == [UnderlayError(SOURCE, 101)] * 2
