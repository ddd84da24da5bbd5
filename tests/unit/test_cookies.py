"""mac1, mac2, cookies: who may ask for work, and what proves an address."""

from __future__ import annotations

import random

import pytest

from omninervous.core.cookies import COOKIE_LIFETIME, CookieChecker, MacGenerator, mac1_valid, with_macs
from omninervous.core.noise import public_key
from omninervous.errors import RemoteError
from omninervous.wire.address import Endpoint
from omninervous.wire.handshake import COOKIE_REPLY_SIZE, RESPONSE_SIZE, decode_cookie_reply

RECEIVER = public_key(b"r" * 32)
MESSAGE = b"\x01\0\0\0\x2a\0\0\0" + bytes(140)
HERE = Endpoint("192.0.2.7", 51820)


def checker(seed: int = 1) -> CookieChecker:
    return CookieChecker(RECEIVER, random.Random(seed).randbytes)


def proven(there: CookieChecker, now: float = 0.0, source: Endpoint = HERE) -> tuple[MacGenerator, bytes]:
    macs = MacGenerator(RECEIVER)
    reply = there.reply(now, macs.sign(now, MESSAGE), source)
    macs.handle_reply(now, decode_cookie_reply(reply))
    return macs, macs.sign(now, MESSAGE)


def test_mac1_covers_the_body_and_is_bound_to_the_receiver() -> None:
    signed = with_macs(RECEIVER, MESSAGE, None)
    assert mac1_valid(RECEIVER, signed)
    assert not mac1_valid(public_key(b"o" * 32), signed)
    for position in range(len(signed) - 16):
        damaged = bytearray(signed)
        damaged[position] ^= 1
        assert not mac1_valid(RECEIVER, bytes(damaged))


def test_bytes_that_are_too_short_for_macs_are_not_valid() -> None:
    there = checker()
    proven(there)
    for length in range(40):
        assert not mac1_valid(RECEIVER, bytes(length))
        assert not there.valid_mac2(0.0, HERE, bytes(length))


def test_a_cookie_proves_its_address_and_port_and_nothing_else() -> None:
    there = checker()
    _, message = proven(there)
    assert mac1_valid(RECEIVER, message)
    assert there.valid_mac2(1.0, HERE, message)
    for other in (Endpoint("192.0.2.7", 51821), Endpoint("192.0.2.8", 51820), Endpoint("::ffff:192.0.2.7", 51820)):
        assert not there.valid_mac2(1.0, other, message)
    assert not there.valid_mac2(1.0, HERE, with_macs(RECEIVER, MESSAGE, None))


def test_a_cookie_works_over_ipv6() -> None:
    there = checker()
    source = Endpoint("2001:db8::1", 4000)
    _, message = proven(there, source=source)
    assert there.valid_mac2(0.0, source, message)


def test_the_secret_and_the_cookie_live_two_minutes() -> None:
    there = checker()
    macs, message = proven(there, now=1000.0)
    assert there.valid_mac2(1000.0 + COOKIE_LIFETIME, HERE, message)
    assert not there.valid_mac2(1000.1 + COOKIE_LIFETIME, HERE, message)
    assert macs.cookie(1000.0 + COOKIE_LIFETIME)
    assert macs.cookie(1000.1 + COOKIE_LIFETIME) is None
    assert macs.sign(1200.0, MESSAGE)[-16:] == bytes(16)
    _, later = proven(there, now=1200.0)
    assert there.valid_mac2(1200.0, HERE, later)
    assert later != message


def test_a_checker_without_replies_accepts_no_mac2() -> None:
    _, message = proven(checker(1))
    assert not checker(1).valid_mac2(0.0, HERE, message)


def test_a_reply_is_smaller_than_what_it_answers_and_names_its_sender() -> None:
    reply = checker().reply(0.0, with_macs(RECEIVER, MESSAGE, None), HERE)
    assert len(reply) == COOKIE_REPLY_SIZE < RESPONSE_SIZE
    assert decode_cookie_reply(reply).receiver_index == 0x2A


def test_a_reply_is_good_for_the_newest_message_only() -> None:
    there = checker()
    macs = MacGenerator(RECEIVER)
    old = decode_cookie_reply(there.reply(0.0, macs.sign(0.0, MESSAGE), HERE))
    macs.sign(0.0, MESSAGE[:8] + b"x" + MESSAGE[9:])
    with pytest.raises(RemoteError, match="bad_cookie"):
        macs.handle_reply(0.0, old)
    assert macs.cookie(0.0) is None


def test_a_forged_reply_leaves_the_cookie_alone() -> None:
    there = checker()
    macs, message = proven(there)
    reply = bytearray(there.reply(0.0, message, HERE))
    reply[-1] ^= 1
    before = macs.cookie(0.0)
    with pytest.raises(RemoteError, match="bad_cookie"):
        macs.handle_reply(5.0, decode_cookie_reply(bytes(reply)))
    assert macs.cookie(5.0) == before is not None


def test_a_reply_before_anything_was_sent_is_refused() -> None:
    reply = decode_cookie_reply(checker().reply(0.0, with_macs(RECEIVER, MESSAGE, None), HERE))
    with pytest.raises(RemoteError, match="bad_cookie"):
        MacGenerator(RECEIVER).handle_reply(0.0, reply)


def test_a_copy_sent_later_takes_the_new_cookie_and_keeps_its_mac1() -> None:
    there = checker()
    macs = MacGenerator(RECEIVER)
    first = macs.sign(0.0, MESSAGE)
    macs.handle_reply(0.1, decode_cookie_reply(there.reply(0.0, first, HERE)))
    again = macs.sign(0.25, first)
    assert again[:-16] == first[:-16]
    assert there.valid_mac2(0.3, HERE, again)
