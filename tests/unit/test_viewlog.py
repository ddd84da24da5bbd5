"""The client side of a view: what it takes, what it refuses, what it asks for again."""

from __future__ import annotations

from omninervous.core import viewlog
from omninervous.core.viewlog import ClientView, ViewChange, ViewPosition
from omninervous.wire.signalling import (
    HeartbeatAck,
    HeartbeatStatus,
    PeerEntry,
    PeerInfo,
    PeerStatus,
    RegisterAck,
    RegisterStatus,
)
from tests.registries import key_of

CURSOR = b"c" * 32


def entry(number: int) -> PeerEntry:
    return PeerEntry(key_of(number) * 7)


def key_in(each: PeerEntry) -> bytes:
    return each.membership[:32]


def registered(*numbers: int) -> ClientView:
    """A view at version 5 of epoch 1."""
    view = ClientView(key_in)
    view.register_sent(1)
    assert view.register_acked(RegisterAck(1, RegisterStatus.OK, 1, 5, peers=tuple(map(entry, numbers)))) is not None
    return view


def delta(request: int, since: int, upto: int, **fields: object) -> HeartbeatAck:
    return HeartbeatAck(request, 1, since, upto, **fields)  # type: ignore[arg-type]


def test_a_delta_adds_and_removes() -> None:
    view = registered(1, 2)
    assert view.heartbeat_sent(2) == ViewPosition(1, 5, None)
    change = view.heartbeat_acked(delta(2, 5, 7, joined=(entry(3),), left=(key_of(1), key_of(9))))
    assert change == ViewChange(joined=((key_of(3), entry(3)),), left=(key_of(1),))
    assert set(view.entries) == {key_of(2), key_of(3)} and view.version == 7


def test_only_the_newest_requests_ack_counts_and_only_once() -> None:
    view = registered(1)
    view.heartbeat_sent(2)
    view.heartbeat_sent(3)
    assert view.heartbeat_acked(delta(2, 5, 6, left=(key_of(1),))) is None
    assert view.heartbeat_acked(delta(3, 5, 6)) == ViewChange()
    assert view.heartbeat_acked(delta(3, 5, 6, left=(key_of(1),))) is None
    assert set(view.entries) == {key_of(1)}


def test_pages_of_a_delta_count_when_the_last_one_is_there() -> None:
    view = registered(1)
    view.heartbeat_sent(2)
    first = view.heartbeat_acked(delta(2, 5, 9, joined=(entry(2),), more=True, cursor=CURSOR))
    assert first is not None and first.again and view.version == 5
    assert view.heartbeat_sent(3) == ViewPosition(1, 5, CURSOR)
    last = view.heartbeat_acked(delta(3, 5, 9, joined=(entry(3),), more=True))
    assert last is not None and last.again  # something newer than version 9
    assert view.heartbeat_sent(4) == ViewPosition(1, 9, None)


def test_a_snapshot_replaces_what_it_does_not_name() -> None:
    view = registered(1, 2, 3)
    view.heartbeat_sent(2)
    page = view.heartbeat_acked(delta(2, 0, 9, joined=(entry(2),), snapshot=True, more=True, cursor=CURSOR))
    assert page is not None and page.left == () and len(view.entries) == 3
    assert view.heartbeat_sent(3) == ViewPosition(1, 0, CURSOR)
    last = view.heartbeat_acked(delta(3, 0, 9, joined=(entry(4),), snapshot=True))
    assert last is not None and set(last.left) == {key_of(1), key_of(3)}
    assert set(view.entries) == {key_of(2), key_of(4)} and view.version == 9


def test_a_snapshot_that_begins_anew_forgets_the_pages_before() -> None:
    view = registered(1)
    view.heartbeat_sent(2)
    view.heartbeat_acked(delta(2, 0, 9, joined=(entry(2),), snapshot=True, more=True, cursor=CURSOR))
    view.heartbeat_sent(3)
    again = HeartbeatAck(3, 2, 0, 4, joined=(entry(3),), snapshot=True)  # the Nucleus restarted between two pages
    assert view.heartbeat_acked(again) is not None
    assert set(view.entries) == {key_of(3)} and view.heartbeat_sent(4) == ViewPosition(2, 4, None)


def test_a_delta_from_another_version_is_asked_for_again() -> None:
    view = registered(1)
    view.heartbeat_sent(2)
    assert view.heartbeat_acked(delta(2, 4, 9, left=(key_of(1),))) == ViewChange(again=True)
    assert set(view.entries) == {key_of(1)} and view.version == 5


def test_refusals_leave_the_view_as_it_is() -> None:
    view = registered(1)
    view.heartbeat_sent(2)
    assert view.heartbeat_acked(HeartbeatAck(2, 0, 0, 0, HeartbeatStatus.UNKNOWN)) == ViewChange()
    view.register_sent(3)
    assert view.register_acked(RegisterAck(3, RegisterStatus.PENDING)) == ViewChange()
    assert set(view.entries) == {key_of(1)}


def test_a_queried_member_enters_and_is_asked_for_again_after_a_snapshot_without_it() -> None:
    view = registered(1)
    view.query_sent(2)
    assert view.answered(PeerInfo(2, entry=entry(8))) == ViewChange(joined=((key_of(8), entry(8)),))
    assert view.answered(PeerInfo(2, entry=entry(8))) is None
    view.register_sent(3)
    change = view.register_acked(RegisterAck(3, RegisterStatus.OK, 2, 1, peers=(entry(1),)))
    assert change is not None and change.ask_again == (key_of(8),) and change.left == (key_of(8),)
    view.forget(key_of(8))
    view.register_sent(4)
    change = view.register_acked(RegisterAck(4, RegisterStatus.OK, 2, 1, peers=(entry(1),)))
    assert change is not None and change.ask_again == ()


def test_an_answer_that_an_ack_overtook_is_not_believed_but_asked_for_again() -> None:
    view = registered(1)
    view.query_sent(2, key_of(8))
    view.heartbeat_sent(3)
    view.heartbeat_acked(delta(3, 5, 6))
    assert view.answered(PeerInfo(2, entry=entry(8))) == ViewChange(ask_again=(key_of(8),))
    assert key_of(8) not in view.entries


def test_pushes_and_unknown_answers_never_enter_the_view() -> None:
    view = registered(1)
    assert view.answered(PeerInfo(0, entry=entry(8))) is None
    assert view.answered(PeerInfo(77, PeerStatus.NOT_FOUND)) is None
    assert set(view.entries) == {key_of(1)}


def test_entries_that_do_not_verify_are_left_out_and_the_view_is_bounded() -> None:
    view = ClientView(lambda each: None if key_in(each) == key_of(1) else key_in(each))
    numbers = range(viewlog.VIEW_LIMIT + 10)
    view.register_sent(1)
    change = view.register_acked(RegisterAck(1, RegisterStatus.OK, 1, 5, peers=tuple(map(entry, numbers))))
    assert change is not None and len(change.joined) == len(view.entries) == viewlog.VIEW_LIMIT
    assert key_of(1) not in view.entries
