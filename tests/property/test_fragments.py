"""Fragments on a bad network: what comes out is what went in, or nothing."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from omninervous.core.fragments import Reassembler, ReassemblyPool, split, split_again
from omninervous.errors import RemoteError
from omninervous.wire.payload import Fragment, decode_fragment


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[bytes], list[int]]:
    """Payloads and, for each fragment of theirs in the order of arrival, its number; with loss and duplication."""
    payloads = draw(st.lists(st.binary(min_size=1, max_size=400), min_size=1, max_size=6))
    count = sum(len(split(each, 0, 48)) for each in payloads)
    return payloads, draw(st.lists(st.integers(0, count - 1), max_size=3 * count))


@given(networks())
def test_a_payload_comes_out_whole_if_all_its_fragments_arrive_and_never_otherwise(
    network: tuple[list[bytes], list[int]],
) -> None:
    payloads, arrivals = network
    sent = [(owner, decode_fragment(each)) for owner, load in enumerate(payloads) for each in split(load, owner, 48)]
    pool = ReassemblyPool()
    reassembler = Reassembler(pool=pool)
    got: Counter[int] = Counter()
    for number in arrivals:
        owner, fragment = sent[number]
        payload = reassembler.add(0.0, fragment)
        if payload is not None:
            assert payload == payloads[owner]
            got[owner] += 1
    arrived = {sent[number] for number in arrivals}
    for owner in range(len(payloads)):
        complete = all(each in arrived for each in sent if each[0] == owner)
        assert (got[owner] > 0) == complete
    reassembler.clear()
    assert pool.used == 0


@given(
    st.binary(min_size=1, max_size=3000), st.integers(9, 300), st.integers(9, 300), st.randoms(use_true_random=False)
)
def test_any_mixture_of_fragment_sizes_fits_together(payload: bytes, first: int, second: int, dice: object) -> None:
    if len(payload) > 60 * (min(first, second) - 8):
        payload = payload[: 60 * (min(first, second) - 8)]
    pieces: list[bytes] = []
    for number, piece in enumerate(split(payload, 7, first)):
        pieces += split_again(decode_fragment(piece), second) if number % 2 and second < first else [piece]
    dice.shuffle(pieces)  # type: ignore[attr-defined]
    reassembler = Reassembler()
    results = [reassembler.add(0.0, decode_fragment(piece)) for piece in pieces]
    if len(pieces) <= 64:
        assert results[-1] == payload
        assert results[:-1] == [None] * (len(pieces) - 1)


FRAGMENTS = st.builds(
    Fragment, st.integers(0, 9), st.integers(0, 300), st.booleans(), st.binary(min_size=1, max_size=90)
)


@given(st.lists(st.tuples(FRAGMENTS, st.floats(0, 0.5)), max_size=80))
def test_lies_never_crash_it_nor_make_it_grow(arrivals: list[tuple[Fragment, float]]) -> None:
    pool = ReassemblyPool(limit=2000)
    reassembler = Reassembler(max_entries=4, pool=pool, max_payload=256)
    now = 0.0
    for fragment, pause in arrivals:
        now += pause
        try:
            payload = reassembler.add(now, fragment)
        except RemoteError as error:
            assert error.reason in ("fragment", "fragment_memory")
        else:
            assert payload is None or len(payload) <= 256
        assert 0 <= pool.used <= pool.limit
        assert len(reassembler) <= 4
    reassembler.expire(now + 1.0)
    assert (pool.used, len(reassembler)) == (0, 0)
