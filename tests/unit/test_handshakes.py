from __future__ import annotations

import pytest

from omninervous.core.context import Context
from omninervous.core.cookies import COOKIE_LIFETIME
from omninervous.core.dataplane import SendDatagram, TrustCookies
from omninervous.core.events import PersistTimestamp
from omninervous.core.handshakes import GUESSES_AT_ONCE, MAX_REPEATS, RESEND_AFTER, Handshakes
from omninervous.core.noise import ZERO_PSK
from omninervous.errors import RemoteError
from omninervous.wire.address import Endpoint
from tests.nodes import X, Y, Z, at, commands, context, identity

OWN, PEER = identity("own").x25519_public, identity("peer").x25519_public


class Side:
    def __init__(self, name: str, **config: object) -> None:
        self.ctx: Context = context(name, **config)
        self.handshakes = Handshakes(self.ctx)

    def sent(self) -> list[tuple[Endpoint, bytes]]:
        return [(command.endpoint, command.data) for command in commands(self.ctx, SendDatagram)]


def initiate(side: Side, now: float = 1.0, psk: bytes = ZERO_PSK) -> bytes:
    side.handshakes.begin(at(now), PEER, psk, (X,))
    return side.sent()[0][1]


def reason(call: object, *arguments: object) -> str:
    with pytest.raises(RemoteError) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.reason


def test_an_initiation_goes_everywhere_and_again() -> None:
    side = Side("own")
    side.handshakes.begin(at(1.0), PEER, ZERO_PSK, (X, Y))
    first = side.sent()
    assert [endpoint for endpoint, _ in first] == [X, Y] and len({data for _, data in first}) == 1
    side.handshakes.extend(at(1.1), PEER, (Y, Z))
    assert side.sent() == [(Z, first[0][1])]
    for after in RESEND_AFTER:
        assert side.ctx.timers.next() == 1.0 + after
        assert side.ctx.timers.pop_due(1.0 + after) == [("handshake", PEER)]
        side.handshakes.handle_timeout(at(1.0 + after), PEER)
        assert side.sent() == [(X, first[0][1]), (Y, first[0][1]), (Z, first[0][1])]
    assert side.ctx.timers.next() is None


def test_each_guess_gets_one_copy_with_a_repetition() -> None:
    side = Side("own")
    guesses = [Endpoint(X.host, port) for port in range(7000, 7000 + 2 * GUESSES_AT_ONCE)]
    side.handshakes.begin(at(1.0), PEER, ZERO_PSK, (X,), guesses)
    assert [endpoint for endpoint, _ in side.sent()] == [X], "whoever answers at once is not searched"
    gone = []
    for number, after in enumerate(RESEND_AFTER):
        if number == 1:
            side.handshakes.extend(at(1.4), PEER, (X, guesses[-1]), guesses)
            side.sent()
        side.handshakes.handle_timeout(at(1.0 + after), PEER)
        gone += [endpoint for endpoint, _ in side.sent() if endpoint not in (X, guesses[-1])]
    assert gone == guesses[:-1], "one that turns out to be named is no guess any more"


def test_the_timestamp_mark_is_given_out_before_it_is_used() -> None:
    side = Side("own")
    side.handshakes.begin(at(1.0), PEER, ZERO_PSK, (X,))
    assert isinstance(side.ctx.events[0], PersistTimestamp)


def test_both_sides_get_one_session() -> None:
    own, peer = Side("own"), Side("peer")
    data = initiate(own)
    incoming = peer.handshakes.open(at(1.0), Y, data)
    assert incoming is not None and incoming.remote_static == OWN
    theirs = peer.handshakes.respond(at(1.0), Y, data, incoming, ZERO_PSK)
    assert not peer.sent(), "the engine does not know the session yet"
    peer.handshakes.answer(at(1.0), data)
    ((target, response),) = peer.sent()
    ours = own.handshakes.handle_response(at(1.1), response)
    assert target == Y and ours.transport.session_id == theirs.session_id and ours.sent_to == (X,)
    assert not own.handshakes.pending(PEER)
    assert reason(own.handshakes.handle_response, at(1.1), response) == "unknown_handshake"


def test_copies_get_the_same_answer_up_to_a_limit() -> None:
    own, peer = Side("own"), Side("peer")
    data = initiate(own)
    incoming = peer.handshakes.open(at(1.0), Y, data)
    assert incoming is not None
    transport = peer.handshakes.respond(at(1.0), Y, data, incoming, ZERO_PSK)
    peer.handshakes.answer(at(1.0), data)
    ((_, response),) = peer.sent()
    for _ in range(MAX_REPEATS - 1):
        assert peer.handshakes.open(at(2.0), Z, data) is None
        assert peer.sent() == [(Z, response)]
    assert reason(peer.handshakes.open, at(2.0), Z, data) == "repeated_initiation"
    assert peer.handshakes.answered_to(transport.local_index) == (Y, Z)
    again = peer.handshakes.open(at(20.0), Z, data)
    assert again is not None
    assert reason(peer.handshakes.respond, at(20.0), Z, data, again, ZERO_PSK) == "replayed_initiation"
    assert not peer.sent()


def test_a_failed_response_leaves_the_handshake_alive() -> None:
    own, peer = Side("own"), Side("peer")
    data = initiate(own)
    incoming = peer.handshakes.open(at(1.0), Y, data)
    assert incoming is not None
    peer.handshakes.respond(at(1.0), Y, data, incoming, b"k" * 32)
    peer.handshakes.answer(at(1.0), data)
    ((_, other_psk),) = peer.sent()
    assert reason(own.handshakes.handle_response, at(1.0), other_psk) == "bad_tag"
    assert own.handshakes.suspect(other_psk) == PEER and own.handshakes.pending(PEER)


def test_cookies_prove_an_address_under_load() -> None:
    own, peer = Side("own"), Side("peer", under_load=1)
    data = initiate(own)
    peer.handshakes.open(at(1.0), Z, initiate(Side("other")))
    assert reason(peer.handshakes.open, at(1.0), Y, data) == "under_load"
    assert not peer.sent(), "an unknown endpoint gets no cookie"
    peer.ctx.endpoints[Y] = OWN
    assert reason(peer.handshakes.open, at(1.0), Y, data) == "under_load"
    ((target, cookie),) = peer.sent()
    assert target == Y and len(cookie) == 64
    own.handshakes.handle_cookie(at(1.1), cookie)
    own.handshakes.handle_timeout(at(1.25), PEER)
    ((_, proven),) = own.sent()
    assert proven[:-16] == data[:-16] and proven[-16:] != bytes(16)
    assert peer.handshakes.open(at(1.3), Y, proven) is not None


def test_the_engine_knows_the_secret_of_every_cookie() -> None:
    peer = Side("peer", under_load=1)
    peer.ctx.endpoints[Y] = OWN
    data = initiate(Side("own"))
    told = []
    for now in (1.0, 1.01, 1.02, 2.0 + COOKIE_LIFETIME, 2.01 + COOKIE_LIFETIME):
        try:
            peer.handshakes.open(at(now), Y, data)
        except RemoteError as error:
            assert error.reason == "under_load"
        given = list(peer.ctx.commands)
        peer.ctx.commands.clear()
        told += [each for each in given if isinstance(each, TrustCookies)]
        assert not any(isinstance(each, TrustCookies) for each in given[1:]), "before the cookie leaves"
    first, second = told
    assert (first.until, second.until) == (1.01 + COOKIE_LIFETIME, 2.01 + 2 * COOKIE_LIFETIME)
    assert first.secret != second.secret and first.secret.hex() not in repr(first)


def test_a_cookie_for_nothing_pending_is_refused() -> None:
    own = Side("own")
    assert reason(own.handshakes.handle_cookie, at(1.0), b"\x03\0\0\0" + bytes(60)) == "unknown_handshake"


def test_new_sessions_are_limited_per_address_but_not_known_ones() -> None:
    peer = Side("peer")
    messages = []
    for number in range(30):
        stranger = Side("s" * (number + 5))
        messages.append(initiate(stranger))
    opened = 0
    for data in messages[:15]:
        try:
            peer.handshakes.open(at(1.0), Y, data)
            opened += 1
        except RemoteError as error:
            assert error.reason == "rate_limited"
    assert opened == 10 and peer.ctx.counters["rate_limited"] == 5
    peer.ctx.endpoints[Y] = OWN
    assert all(peer.handshakes.open(at(1.0), Y, data) is not None for data in messages[15:])


def test_aborted_handshakes_free_their_index() -> None:
    own, peer = Side("own"), Side("peer")
    data = initiate(own)
    own.handshakes.abort(PEER)
    incoming = peer.handshakes.open(at(1.0), Y, data)
    assert incoming is not None
    peer.handshakes.respond(at(1.0), Y, data, incoming, ZERO_PSK)
    peer.handshakes.answer(at(1.0), data)
    ((_, response),) = peer.sent()
    assert reason(own.handshakes.handle_response, at(1.0), response) == "unknown_handshake"
    assert not own.handshakes._owners and own.ctx.timers.next() is None


def test_a_wrong_mac1_costs_nothing() -> None:
    peer = Side("peer")
    data = initiate(Side("own"))
    assert reason(peer.handshakes.open, at(1.0), Y, data[:-20] + bytes(20)) == "bad_mac1"
    assert not peer.ctx.counters
