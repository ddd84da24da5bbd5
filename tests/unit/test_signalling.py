"""Signalling messages: what every layout-wide test (test_tlv.py) does not say."""

from __future__ import annotations

import pytest

from omninervous.errors import DecodeError
from omninervous.wire.control import Versions
from omninervous.wire.membership import MEMBERSHIP_MAX_SIZE
from omninervous.wire.signalling import (
    CLUSTER_NAME_MAX_SIZE,
    ENTRY_FIELD_OVERHEAD,
    MAX_CANDIDATES,
    MAX_SIGNALLING,
    HeartbeatAck,
    PeerEntry,
    PeerInfo,
    PeerStatus,
    QueryPeer,
    Register,
    RegisterAck,
    RegisterStatus,
    cluster_name_problem,
    decode_signalling,
)
from tests.wire_examples import BOOT_ID, E6, ENTRY, MEMBERSHIP


def test_an_unknown_type_is_none_whatever_follows() -> None:
    for kind in (0x01, 0x3F, 0x48, 0xFF):
        assert decode_signalling(bytes((4, kind)) + b"\xff" * 9) is None


def test_an_unknown_status_is_refused() -> None:
    for message, position in ((RegisterAck(1, RegisterStatus.OK), 12), (HeartbeatAck(1, 2, 3, 4), 45)):
        data = bytearray(message.encode())
        assert data[position] == 0
        data[position] = 99
        with pytest.raises(DecodeError):
            decode_signalling(bytes(data))


def test_a_query_names_exactly_one_thing() -> None:
    for query in (QueryPeer(1), QueryPeer(1, mac=b"\x02abcde", key=b"x" * 32)):
        with pytest.raises(AssertionError):
            query.encode()
    key, mac = QueryPeer(1, key=b"x" * 32).encode(), QueryPeer(1, mac=b"\x02abcde").encode()
    for data in (key[:9], mac + key[9:]):
        with pytest.raises(DecodeError):
            decode_signalling(data)


def test_peer_info_has_an_entry_exactly_when_found() -> None:
    with pytest.raises(AssertionError):
        PeerInfo(1).encode()
    data = bytearray(PeerInfo(1, PeerStatus.NOT_FOUND).encode())
    data[12] = PeerStatus.FOUND
    with pytest.raises(DecodeError):
        decode_signalling(bytes(data))


def test_unknown_flag_bits_are_ignored() -> None:
    data = bytearray(QueryPeer(1, key=b"x" * 32, punch=True).encode())
    data[-1] |= 0xF0
    assert decode_signalling(bytes(data)) == QueryPeer(1, key=b"x" * 32, punch=True)


def test_no_message_is_larger_than_the_limit() -> None:
    full = RegisterAck(1, RegisterStatus.OK, peers=(ENTRY,) * 20)
    with pytest.raises(AssertionError):
        full.encode()
    with pytest.raises(DecodeError):
        decode_signalling(b"\x04\x47" + bytes(MAX_SIGNALLING))


def test_the_largest_messages_about_one_peer_fit() -> None:
    candidates = (E6,) * MAX_CANDIDATES
    entry = PeerEntry(bytes(MEMBERSHIP_MAX_SIZE), E6, candidates)
    register = Register(1, "n" * 63, b"c" * 32, bytes(MEMBERSHIP_MAX_SIZE), BOOT_ID, Versions(1, 1), candidates)
    for message in (register, PeerInfo(1, entry=entry), RegisterAck(1, RegisterStatus.VIP_TAKEN, holder=entry)):
        assert len(message.encode()) <= MAX_SIGNALLING


def test_an_entry_costs_its_size_and_the_overhead() -> None:
    sizes = [len(HeartbeatAck(1, 2, 3, 4, joined=(ENTRY,) * count).encode()) for count in (1, 2)]
    assert sizes[1] - sizes[0] == len(ENTRY.encode()) + ENTRY_FIELD_OVERHEAD


@pytest.mark.parametrize("name", ["", "x" * 64, "ü" * 32, "a\nb", "a\x1b[2Jb", "a\u202eb", "a\u200bb", " a", "a "])
def test_a_cluster_name_that_could_fool_a_reader_is_refused(name: str) -> None:
    assert cluster_name_problem(name)
    size = len(name.encode())
    if 1 <= size <= CLUSTER_NAME_MAX_SIZE:
        data = Register(1, "Z" * size, b"c" * 32, MEMBERSHIP, BOOT_ID, Versions(1, 1)).encode()
        with pytest.raises(DecodeError, match="cluster name"):
            decode_signalling(data.replace(b"Z" * size, name.encode(), 1))


@pytest.mark.parametrize("name", ["x", "ai-robot-fleet", "Werk Köln 2", "x" * 63, "机器人"])
def test_other_names_are_fine(name: str) -> None:
    assert cluster_name_problem(name) is None
