from __future__ import annotations

from omninervous.core.context import Context
from omninervous.core.dataplane import Link, RemoveSession, SelectSession
from omninervous.core.handshakes import Handshakes
from omninervous.core.liveness import Liveness
from omninervous.core.noise import Transport
from omninervous.core.peer_sessions import REJECT_AFTER, PeerSession, PeerSessions
from tests.nodes import at, commands, context

PEER = b"p" * 32
OLD, NEW = b"o" * 16, b"n" * 16


class Table:
    def __init__(self, link: Link = Link.ETHERNET) -> None:
        self.ctx: Context = context()
        self.sessions = PeerSessions(self.ctx, Handshakes(self.ctx), Liveness(), PEER, link)

    def add(self, number: int, now: float, *, initiator: bool = True, order: int | None = None) -> PeerSession:
        identifier = (number if order is None else order).to_bytes(8, "big")
        keys = (bytes(32), bytes(32))
        transport = Transport(number, number, *keys, initiator, identifier, PEER, bytes(32), bytes(32))
        session = self.sessions.install(at(now), transport)
        self.sessions.confirm(at(now), session)
        return session

    def removed(self) -> list[int]:
        return [command.local_index for command in commands(self.ctx, RemoveSession)]

    def order(self) -> list[int]:
        return [session.index for session in self.sessions.confirmed]


def test_the_newest_sends_and_three_receive() -> None:
    table = Table()
    for number in range(1, 6):
        table.add(number, number * 120.0)
    assert table.order() == [5, 4, 3] and table.removed() == [1, 2]


def test_of_two_that_cross_the_smaller_id_sends() -> None:
    for first, second in ((1, 2), (2, 1)):
        table = Table()
        table.add(10, 1.0, initiator=True, order=first)
        table.add(11, 1.2, initiator=False, order=second)
        assert table.order()[0] == (10 if first == 1 else 11)


def test_what_does_not_cross_is_newer() -> None:
    same_side, later, stock = Table(), Table(), Table(Link.IP)
    for table, now, initiator in ((same_side, 1.2, True), (later, 6.1, False), (stock, 1.2, False)):
        table.add(10, 1.0, initiator=True, order=1)
        table.add(11, now, initiator=initiator, order=2)
        assert table.order() == [11, 10]


def test_one_session_waits_at_most_and_is_taken_by_its_index() -> None:
    table = Table()
    first = PeerSession(table.add(1, 1.0).transport, 1.0)
    second = PeerSession(table.add(2, 2.0).transport, 2.0)
    table.sessions.wait(first)
    table.sessions.wait(second)
    assert table.removed() == [1]
    assert table.sessions.take_waiting(1) is None and table.sessions.take_waiting(2) is second
    assert table.sessions.waiting_expires_at is None


def test_another_boot_ends_the_sessions_of_the_one_before() -> None:
    table = Table()
    first, second = table.add(1, 1.0), table.add(2, 2.0)
    assert not table.sessions.note_boot(first, OLD)
    commands(table.ctx, SelectSession)
    assert not table.sessions.note_boot(second, NEW)
    assert table.order() == [2]


def test_boots_that_alternate_are_a_clone() -> None:
    table = Table()
    assert [table.sessions.note_boot(table.add(n, n), boot) for n, boot in ((1, OLD), (2, NEW), (3, OLD))] == [
        False,
        False,
        True,
    ]


def test_a_close_ends_the_session_and_those_before_it() -> None:
    table = Table()
    table.add(1, 1.0)
    closed = table.add(2, 2.0)
    table.add(3, 3.0)
    table.sessions.close_until(closed)
    assert table.order() == [3] and sorted(table.removed()) == [1, 2]


def test_removing_the_sender_selects_the_next() -> None:
    table = Table()
    table.add(1, 1.0)
    table.add(2, 30.0)
    commands(table.ctx, SelectSession)
    table.sessions.expire(at(1.0 + REJECT_AFTER))
    assert table.order() == [2] and commands(table.ctx, SelectSession) == []
    table.sessions.expire(at(30.0 + REJECT_AFTER))
    assert table.order() == [] and table.sessions.current is None
