"""Every handshake decoder: arbitrary bytes give an object or DecodeError, and what it takes, it gives back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omninervous.core.cookies import mac1_valid
from omninervous.core.noise import ZERO_PSK, IncomingInitiation, Initiator, StaticKeys
from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.handshake import (
    COOKIE_REPLY_SIZE,
    INITIATION_SIZE,
    RESPONSE_SIZE,
    CookieReply,
    Initiation,
    Response,
    decode_cookie_reply,
    decode_initiation,
    decode_response,
)
from omninervous.wire.transport import HEADER_SIZE, TransportHeader, decode_header, lane_of, make_counter

Decoder = Callable[[bytes], Initiation | Response | CookieReply]
DECODERS: list[tuple[Decoder, bytes, int]] = [
    (decode_initiation, b"\x01\0\0\0", INITIATION_SIZE),
    (decode_response, b"\x02\0\0\0", RESPONSE_SIZE),
    (decode_cookie_reply, b"\x03\0\0\0", COOKIE_REPLY_SIZE),
]
KEYS = StaticKeys(b"k" * 32)


def u32() -> st.SearchStrategy[int]:
    return st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(("decode", "start", "size"), DECODERS)
@given(data=st.data())
def test_a_decoder_takes_what_it_encodes_and_refuses_the_rest(
    decode: Decoder, start: bytes, size: int, data: st.DataObject
) -> None:
    tail = st.binary(min_size=size - 4, max_size=size - 4)
    text = data.draw(st.binary(max_size=200) | tail.map(lambda rest: start + rest))
    try:
        message = decode(text)
    except DecodeError:
        assert len(text) != size or not text.startswith(start)
    else:
        assert message.encode() == text


@given(st.binary(max_size=64) | st.binary(min_size=28, max_size=64).map(lambda rest: b"\x04\0\0\0" + rest))
def test_the_transport_header_takes_what_it_encodes_and_refuses_the_rest(data: bytes) -> None:
    try:
        header = decode_header(data)
    except DecodeError:
        assert len(data) < 32 or not data.startswith(b"\x04\0\0\0")
    else:
        assert header.encode() == data[:HEADER_SIZE]


@given(u32(), st.integers(0, 15), st.integers(0, 2**60 - 1))
def test_a_lane_and_its_sequence_come_back(index: int, lane: int, sequence: int) -> None:
    header = TransportHeader(index, make_counter(lane, sequence))
    assert decode_header(header.encode() + bytes(16)) == header
    assert lane_of(header.counter) == lane


@given(st.binary(max_size=200))
def test_mac1_of_arbitrary_bytes_is_not_valid(data: bytes) -> None:
    assert not mac1_valid(KEYS.public, data)


@given(st.binary(max_size=200) | st.binary(min_size=144, max_size=144).map(lambda rest: b"\x01\0\0\0" + rest))
def test_arbitrary_bytes_are_no_initiation(data: bytes) -> None:
    with pytest.raises(RemoteError):
        IncomingInitiation.open(KEYS, data)


@given(
    st.randoms(use_true_random=False),
    u32(),
    u32(),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=12, max_size=12),
)
def test_any_two_peers_agree(random: object, ours: int, theirs: int, psk: bytes, stamp: bytes) -> None:
    entropy = random.randbytes  # type: ignore[attr-defined]
    one, two = StaticKeys(entropy(32)), StaticKeys(entropy(32))
    initiator = Initiator.create(one, two.public, psk, stamp, ours, entropy)
    incoming = IncomingInitiation.open(two, initiator.message)
    assert (incoming.remote_static, incoming.timestamp, incoming.sender_index) == (one.public, stamp, ours)
    response, end = incoming.respond(psk, theirs, entropy)
    if psk != ZERO_PSK:
        other, _ = incoming.respond(ZERO_PSK, theirs, entropy)
        with pytest.raises(RemoteError, match="bad_tag"):
            initiator.finish(other)
    transport = initiator.finish(response)
    assert (transport.send_key, transport.recv_key) == (end.recv_key, end.send_key)
    assert transport.session_id == end.session_id
