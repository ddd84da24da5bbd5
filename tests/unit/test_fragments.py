"""Splitting and reassembly in bounded memory."""

from __future__ import annotations

from itertools import permutations

import pytest

from omninervous.core.fragments import MAX_PIECES, Reassembler, ReassemblyPool, split, split_again
from omninervous.errors import RemoteError
from omninervous.wire.payload import Fragment, decode_fragment

PAYLOAD = bytes(range(100))


def pieces(payload: bytes = PAYLOAD, fragment_id: int = 1, limit: int = 8 + 40) -> list[Fragment]:
    return [decode_fragment(each) for each in split(payload, fragment_id, limit)]


def test_no_fragment_exceeds_the_limit_and_only_the_end_is_last() -> None:
    encoded = split(PAYLOAD, 1, 48)
    assert [len(each) for each in encoded] == [48, 48, 28]
    assert [(each.offset, each.last) for each in pieces()] == [(0, False), (40, False), (80, True)]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_any_order_gives_the_payload_once(order: tuple[int, ...]) -> None:
    reassembler, parts = Reassembler(), pieces()
    results = [reassembler.add(0.0, parts[number]) for number in order]
    assert results == [None, None, PAYLOAD]
    assert len(reassembler) == 0


def test_a_repeated_fragment_changes_nothing() -> None:
    reassembler, parts = Reassembler(), pieces()
    results = [reassembler.add(0.0, parts[number]) for number in (0, 0, 2, 2, 0, 1)]
    assert results == [None] * 5 + [PAYLOAD]


def test_payloads_may_interleave() -> None:
    reassembler = Reassembler()
    both = zip(pieces(PAYLOAD, 1), pieces(PAYLOAD[::-1], 2), strict=True)
    results = [reassembler.add(0.0, each) for pair in both for each in pair]
    assert results[-2:] == [PAYLOAD, PAYLOAD[::-1]]


def test_fragments_that_were_cut_again_fit_in_between() -> None:
    reassembler, parts = Reassembler(), pieces()
    smaller = [decode_fragment(each) for each in split_again(parts[1], 8 + 7)]
    results = [reassembler.add(0.0, each) for each in (parts[2], *smaller, parts[0])]
    assert results[-1] == PAYLOAD
    assert [each.last for each in (decode_fragment(each) for each in split_again(parts[2], 8 + 7))] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    "liar",
    [
        Fragment(1, 20, False, b"overlap"),
        Fragment(1, 0, False, b"other data"),
        Fragment(1, 90, False, bytes(20)),
        Fragment(1, 200, True, b"second end"),
    ],
)
def test_a_contradiction_ends_the_payload(liar: Fragment) -> None:
    pool = ReassemblyPool()
    reassembler, parts = Reassembler(pool=pool), pieces()
    reassembler.add(0.0, parts[0])
    reassembler.add(0.0, parts[2])
    with pytest.raises(RemoteError) as caught:
        reassembler.add(0.0, liar)
    assert caught.value.reason == "fragment"
    assert reassembler.add(0.0, parts[1]) is None, "what came before is forgotten"
    reassembler.clear()
    assert pool.used == 0


def test_an_end_before_data_that_is_there_is_a_contradiction() -> None:
    reassembler = Reassembler()
    reassembler.add(0.0, Fragment(1, 80, False, bytes(20)))
    with pytest.raises(RemoteError):
        reassembler.add(0.0, Fragment(1, 20, True, bytes(20)))


def test_larger_payloads_than_allowed_are_refused() -> None:
    reassembler = Reassembler(max_payload=99)
    reassembler.add(0.0, pieces()[0])
    with pytest.raises(RemoteError):
        reassembler.add(0.0, pieces()[2])


def test_tiny_pieces_are_limited() -> None:
    reassembler = Reassembler()
    for offset in range(MAX_PIECES):
        reassembler.add(0.0, Fragment(1, 2 * offset, False, b"x"))
    with pytest.raises(RemoteError):
        reassembler.add(0.0, Fragment(1, 2 * MAX_PIECES, False, b"x"))


def test_what_misses_pieces_for_too_long_is_forgotten() -> None:
    pool = ReassemblyPool()
    reassembler, parts = Reassembler(timeout=1.0, pool=pool), pieces()
    reassembler.add(5.0, parts[0])
    assert reassembler.deadline == 6.0
    reassembler.add(5.9, parts[1])
    assert reassembler.add(6.0, parts[2]) is None, "the first two are too old now"
    assert (pool.timed_out, reassembler.deadline) == (1, 7.0)


def test_the_oldest_payload_makes_room() -> None:
    pool = ReassemblyPool()
    reassembler = Reassembler(max_entries=2, pool=pool)
    for fragment_id in (1, 2, 3):
        reassembler.add(0.0, pieces(PAYLOAD, fragment_id)[0])
    assert (len(reassembler), pool.evicted) == (2, 1)
    reassembler.add(0.0, pieces(PAYLOAD, 2)[1])
    assert reassembler.add(0.0, pieces(PAYLOAD, 2)[2]) == PAYLOAD


def test_all_peers_share_one_bounded_memory_and_give_it_back() -> None:
    pool = ReassemblyPool(limit=400)
    one, two = Reassembler(pool=pool), Reassembler(pool=pool)
    one.add(0.0, pieces()[0])
    two.add(0.0, pieces()[0])
    with pytest.raises(RemoteError) as caught:
        two.add(0.0, pieces()[1])
    assert caught.value.reason == "fragment_memory"
    one.clear()
    assert two.add(0.0, pieces()[1]) is None
    two.expire(9.0)
    assert pool.used == 0
