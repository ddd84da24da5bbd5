"""PCP and NAT-PMP: the bytes of RFC 6886 and 6887, and what is refused."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.portmap import (
    GrantedMapping,
    decode_announcement,
    decode_pcp_mapping,
    decode_pmp_address,
    decode_pmp_mapping,
    encode_pcp_mapping,
    encode_pmp_address,
    encode_pmp_mapping,
    epoch_goes_on,
)

NONCE = bytes(range(12))
# The answer of a real router (miniupnpd 2.3.1's layout): version, R|MAP, 0, result, lifetime, epoch, 12 zeros, MAP.
PCP = bytes.fromhex(
    "02810000 00000258 00000007 000000000000000000000000 000102030405060708090a0b 11000000 ca6c ca6d"
    "00000000000000000000ffffc6140001"
)
PMP_ADDRESS = bytes.fromhex("0080 0000 00000007 c6140001")
PMP = bytes.fromhex("0081 0000 00000007 ca6c ca6d 00000258")


def test_requests_have_the_bytes_of_the_rfcs() -> None:
    request = encode_pcp_mapping(NONCE, IPv4Address("192.168.1.2"), 51820, 51821, 600)
    assert request.hex() == (
        "0201000000000258" + "00000000000000000000ffffc0a80102" + NONCE.hex() + "11000000" + "ca6cca6d"
        "00000000000000000000ffff00000000"
    )
    assert encode_pmp_address().hex() == "0000"
    assert encode_pmp_mapping(51820, 51821, 600).hex() == "00010000ca6cca6d00000258"


def test_answers_are_read() -> None:
    assert decode_pcp_mapping(PCP, NONCE, 51820) == GrantedMapping(IPv4Address("198.20.0.1"), 51821, 600, 7)
    assert decode_pmp_address(PMP_ADDRESS) == IPv4Address("198.20.0.1")
    assert decode_pmp_mapping(PMP, 51820) == GrantedMapping(None, 51821, 600, 7)


def test_an_announcement_says_since_when_a_gateway_keeps_its_mappings() -> None:
    assert decode_announcement(PMP_ADDRESS) == 7
    assert decode_announcement(bytes.fromhex("02800000 00000000 00000009 000000000000000000000000")) == 9
    for data in (b"", PMP, PCP, PMP_ADDRESS[:-1], bytes(24), encode_pmp_address(), b"\0\x80\0\1" + PMP_ADDRESS[4:]):
        with pytest.raises(DecodeError):
            decode_announcement(data)


@pytest.mark.parametrize(
    ("before", "after", "passed", "goes_on"),
    [
        (1000, 1100, 100.0, True),
        (1000, 999, 0.0, True),  # rounding
        (1000, 998, 0.0, False),
        (1000, 3, 100.0, False),
        (10, 40, 600.0, False),  # it has counted past where it was: a restart within the silence
        (0, 107, 100.0, True),  # a clock may be wrong by a sixteenth
        (0, 200, 100.0, False),
    ],
)
def test_a_clock_that_does_not_go_on_means_lost_mappings(before: int, after: int, passed: float, goes_on: bool) -> None:
    assert epoch_goes_on(before, after, passed) is goes_on


@pytest.mark.parametrize("change", range(-1, 2, 2))
def test_other_lengths_are_no_answers(change: int) -> None:
    for data, decode in (
        (PCP, lambda each: decode_pcp_mapping(each, NONCE, 51820)),
        (PMP_ADDRESS, decode_pmp_address),
        (PMP, lambda each: decode_pmp_mapping(each, 51820)),
    ):
        with pytest.raises(DecodeError):
            decode(data[:change] if change < 0 else data + b"\0")


def test_an_answer_to_somebody_else_is_none_of_ours() -> None:
    for nonce, port in ((bytes(12), 51820), (NONCE, 51821)):
        with pytest.raises(DecodeError, match="another request"):
            decode_pcp_mapping(PCP, nonce, port)
    with pytest.raises(DecodeError, match="another request"):
        decode_pmp_mapping(PMP, 51821)


def test_a_refusal_is_told_apart() -> None:
    with pytest.raises(RemoteError, match="result 8"):
        decode_pcp_mapping(PCP[:3] + b"\x08" + PCP[4:], NONCE, 51820)
    with pytest.raises(RemoteError, match="NAT-PMP only"):
        decode_pcp_mapping(bytes.fromhex("0080000100000007"), NONCE, 51820)
    with pytest.raises(RemoteError, match="result 2"):
        decode_pmp_address(PMP_ADDRESS[:3] + b"\x02" + PMP_ADDRESS[4:])
    with pytest.raises(RemoteError, match="result 3"):
        decode_pmp_mapping(PMP[:3] + b"\x03" + PMP[4:], 51820)


def test_neither_port_0_nor_an_ipv6_address_is_taken() -> None:
    with pytest.raises(DecodeError, match="port 0"):
        decode_pcp_mapping(PCP[:42] + bytes(2) + PCP[44:], NONCE, 51820)
    with pytest.raises(DecodeError, match="no IPv4"):
        decode_pcp_mapping(PCP[:44] + bytes(16), NONCE, 51820)


@given(st.binary(max_size=80))
def test_any_bytes_give_an_answer_or_one_of_two_errors(data: bytes) -> None:
    for decode in (
        lambda: decode_pcp_mapping(data, NONCE, 51820),
        lambda: decode_pmp_address(data),
        lambda: decode_pmp_mapping(data, 51820),
    ):
        with contextlib.suppress(DecodeError, RemoteError):
            decode()
