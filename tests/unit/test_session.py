"""A session: what it seals opens once, on its lane, until its end."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag

from omninervous.core.dataplane import Aead, InstallSession, LaneKeys, OpenLanes
from omninervous.core.session import AES_LIMIT, AES_REKEY, REKEY_AFTER_MESSAGES, Opened, Session, _Lane
from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.transport import SEQUENCE_LIMIT, decode_header

HERE, THERE = 0x11111111, 0x22222222
END = 180.0
WYCHEPROOF = Path(__file__).parents[1] / "vectors" / "wycheproof_aead.json"


def key(number: int) -> bytes:
    return bytes([number]) * 32


def lane_keys(lane: int, aead: Aead = Aead.CHACHA20_POLY1305, *, flip: bool = False) -> LaneKeys:
    first, second = key(2 * lane + 10), key(2 * lane + 11)
    return LaneKeys(lane, aead, second, first) if flip else LaneKeys(lane, aead, first, second)


def pair() -> tuple[Session, Session]:
    one = Session(InstallSession(b"p" * 32, HERE, THERE, key(1), key(2), END))
    two = Session(InstallSession(b"q" * 32, THERE, HERE, key(2), key(1), END))
    return one, two


def open_lanes(one: Session, two: Session, lanes: Iterable[LaneKeys]) -> None:
    lanes = tuple(lanes)
    numbers = tuple(lane.lane for lane in lanes)
    one.open_lanes(OpenLanes(HERE, lanes, numbers))
    flipped = tuple(LaneKeys(lane.lane, lane.aead, lane.recv_key, lane.send_key) for lane in lanes)
    two.open_lanes(OpenLanes(THERE, flipped, numbers))


def refused(session: Session, datagram: bytes, now: float = 0.0) -> str:
    with pytest.raises(RemoteError) as caught:
        session.open(now, datagram)
    return caught.value.reason


def test_a_payload_crosses_and_an_empty_one_is_a_keepalive_of_32_bytes() -> None:
    one, two = pair()
    assert len(one.seal(b"")) == 32
    assert two.open(0.0, one.seal(b"hello")) == Opened(0, 1, b"hello", True)
    assert one.open(0.0, two.seal(b"back")) == Opened(0, 0, b"back", True)


def test_a_datagram_opens_once() -> None:
    one, two = pair()
    datagram = one.seal(b"x")
    two.open(0.0, datagram)
    assert refused(two, datagram) == "replay"


def test_only_the_newest_packet_of_a_lane_is_called_highest() -> None:
    one, two = pair()
    open_lanes(one, two, [lane_keys(1)])
    first, second, other = one.seal(b"1"), one.seal(b"2"), one.seal(b"3", 1)
    assert two.open(0.0, second).highest
    assert not two.open(0.0, first).highest
    assert two.open(0.0, other).highest


@pytest.mark.parametrize("bit", range(0, 8 * (32 + 4), 7))
def test_one_flipped_bit_is_refused_and_changes_nothing(bit: int) -> None:
    one, two = pair()
    datagram = one.seal(b"data")
    damaged = bytearray(datagram)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises((RemoteError, DecodeError)):
        two.open(0.0, bytes(damaged))
    assert two.open(0.0, datagram).payload == b"data"


def test_runts_and_other_types_are_no_transport_datagrams() -> None:
    one, two = pair()
    datagram = one.seal(b"")
    for data in (b"", datagram[:31], b"\x01" + datagram[1:], datagram[:1] + b"\x01" + datagram[2:]):
        with pytest.raises(DecodeError):
            two.open(0.0, data)


def test_a_datagram_for_another_index_is_refused() -> None:
    one, _ = pair()
    assert refused(one, one.seal(b"")) == "unknown_session"


def test_a_session_ends_at_its_time() -> None:
    one, two = pair()
    datagram = one.seal(b"late")
    assert refused(two, datagram, END + 0.001) == "expired"
    assert two.expired(END + 0.001)
    assert not two.expired(END)
    assert two.open(END, datagram).payload == b"late"


@pytest.mark.parametrize("aead", Aead)
@pytest.mark.parametrize("lane", range(1, 9))
def test_every_lane_carries_data_with_either_aead(lane: int, aead: Aead) -> None:
    one, two = pair()
    open_lanes(one, two, [lane_keys(lane, aead)])
    datagram = one.seal(b"fast", lane)
    assert decode_header(datagram).counter >> 60 == lane
    assert two.open(0.0, datagram) == Opened(lane, 0, b"fast", True)


def test_a_lane_must_be_open_on_both_sides() -> None:
    one, two = pair()
    one.open_lanes(OpenLanes(HERE, (lane_keys(1), lane_keys(2)), (1,)))
    assert refused(two, one.seal(b"", 1)) == "lane"
    for closed in (2, 3, 8, 9, 15):
        with pytest.raises(RemoteError, match="lane"):
            one.seal(b"", closed)


def test_a_lane_receives_before_it_may_send() -> None:
    one, two = pair()
    one.open_lanes(OpenLanes(HERE, (lane_keys(1),), (1,)))
    two.open_lanes(OpenLanes(THERE, (lane_keys(1, flip=True),), ()))
    assert two.open(0.0, one.seal(b"go", 1)).payload == b"go"
    with pytest.raises(RemoteError, match="lane"):
        two.seal(b"", 1)


def test_opening_a_lane_again_keeps_its_key_counter_and_window() -> None:
    one, two = pair()
    open_lanes(one, two, [lane_keys(1)])
    first = one.seal(b"1", 1)
    two.open(0.0, first)
    open_lanes(one, two, [lane_keys(1)])
    one.open_lanes(OpenLanes(HERE, (LaneKeys(1, Aead.AES_256_GCM, key(90), key(91)),), (1,)))
    second = one.seal(b"2", 1)
    assert decode_header(second).counter == 1 << 60 | 1
    assert refused(two, first) == "replay"
    assert two.open(0.0, second).payload == b"2"


def test_the_set_of_sending_lanes_is_the_newest_commands() -> None:
    one, _ = pair()
    one.open_lanes(OpenLanes(HERE, (lane_keys(1), lane_keys(2)), (1, 2)))
    one.open_lanes(OpenLanes(HERE, (), (2,)))
    with pytest.raises(RemoteError, match="lane"):
        one.seal(b"", 1)
    one.open_lanes(OpenLanes(HERE, (), (1, 2)))
    assert decode_header(one.seal(b"", 1)).counter == 1 << 60


def test_lane_0_cannot_be_replaced() -> None:
    one, _ = pair()
    with pytest.raises(AssertionError):
        one.open_lanes(OpenLanes(HERE, (LaneKeys(0, Aead.CHACHA20_POLY1305, key(5), key(6)),), (0,)))


@pytest.mark.parametrize(
    ("aead", "rekey", "limit"),
    [
        (Aead.CHACHA20_POLY1305, REKEY_AFTER_MESSAGES, SEQUENCE_LIMIT),
        (Aead.AES_256_GCM, AES_REKEY, AES_LIMIT),
    ],
)
def test_a_lane_asks_for_a_rekey_and_later_stops(aead: Aead, rekey: int, limit: int) -> None:
    one, two = pair()
    open_lanes(one, two, [lane_keys(3, aead)])
    one.advance(3, rekey - 1)
    one.seal(b"", 3)
    assert not one.exhausted
    one.seal(b"", 3)
    assert one.exhausted
    one.advance(3, limit - 1)
    last = one.seal(b"last", 3)
    for _ in range(3):
        with pytest.raises(RemoteError, match="counter_limit"):
            one.seal(b"", 3)
    assert two.open(0.0, last).payload == b"last"
    over = last[:8] + ((3 << 60) + limit).to_bytes(8, "little") + last[16:]
    assert refused(two, over) == "counter_limit"
    assert one.seal(b"", 0)


def test_counters_never_go_back() -> None:
    one, _ = pair()
    one.advance(0, 10)
    with pytest.raises(AssertionError):
        one.advance(0, 9)


def test_a_sequence_number_is_lost_when_sealing_fails() -> None:
    one, _ = pair()
    with pytest.raises(TypeError):
        one.seal("text")  # type: ignore[arg-type]
    assert decode_header(one.seal(b"")).counter == 1


def test_a_wiped_session_does_nothing_any_more() -> None:
    one, two = pair()
    datagram = one.seal(b"")
    one.wipe()
    two.wipe()
    assert refused(two, datagram) == "expired"
    one.open_lanes(OpenLanes(HERE, (lane_keys(1),), (1,)))
    for lane in range(16):
        with pytest.raises(RemoteError, match="lane"):
            one.seal(b"", lane)


def test_threads_that_seal_at_once_never_share_a_counter() -> None:
    one, two = pair()
    open_lanes(one, two, [lane_keys(1)])
    sent: list[list[int]] = [[] for _ in range(8)]
    barrier = threading.Barrier(len(sent))

    def run(mine: list[int]) -> None:
        barrier.wait()
        for number in range(2000):
            mine.append(decode_header(one.seal(b"x", number % 2)).counter)

    threads = [threading.Thread(target=run, args=(mine,)) for mine in sent]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counters = [counter for mine in sent for counter in mine]
    assert len(counters) == len({*counters}) == 16_000


def wycheproof() -> list[list[str]]:
    vectors: list[list[str]] = json.loads(WYCHEPROOF.read_text())["vectors"]
    return vectors


def test_wycheproof_vectors_seal_and_open_as_they_should() -> None:
    tried = Counter[str]()
    for cipher, result, *texts, comment in wycheproof():
        secret, nonce, aad, plaintext, ciphertext, tag = map(bytes.fromhex, texts)
        aead = Aead.AES_256_GCM if cipher == "aes_256_gcm" else Aead.CHACHA20_POLY1305
        lane = _Lane(LaneKeys(1, aead, secret, secret), sends=True)
        tried[cipher] += 1
        if result == "valid":
            assert lane.seal(nonce, plaintext, aad) == ciphertext + tag, comment
            assert lane.open(nonce, ciphertext + tag, aad) == plaintext, comment
        else:
            with pytest.raises(InvalidTag):
                lane.open(nonce, ciphertext + tag, aad)
    assert tried == {"chacha20_poly1305": 316, "aes_256_gcm": 66}


def test_sessions_are_the_same_if_their_sending_key_is() -> None:
    one, _ = pair()
    assert one.same_key(InstallSession(b"x" * 32, 1, 2, key(1), key(9), 0.0))
    assert not one.same_key(InstallSession(b"p" * 32, HERE, THERE, key(9), key(2), END))
    assert key(1) not in [getattr(one, name, None) for name in Session.__slots__]
