"""Timestamps: strictly increasing, whatever clock and restarts do, and never past the mark on disk."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from omninervous.core.tai64n import RESERVE_SECONDS, Tai64nClock
from omninervous.errors import DecodeError

NOW = 1_790_000_000.5


def seconds(stamp: bytes) -> float:
    return int.from_bytes(stamp[:8], "big") - (2**62 + 10) + int.from_bytes(stamp[8:], "big") / 1e9


def test_the_format_is_that_of_wireguard_go() -> None:
    stamp = Tai64nClock(None).next(NOW)
    assert len(stamp) == 12
    assert seconds(stamp) == pytest.approx(NOW, abs=0.017)
    assert int.from_bytes(stamp[8:], "big") % (1 << 24) == 0
    path = Path(__file__).parents[1] / "vectors" / "wireguard_transcript.json"
    theirs = bytes.fromhex(json.loads(path.read_text())["transcripts"]["with_psk"]["timestamp"])
    assert seconds(theirs) == pytest.approx(NOW, rel=0.05)
    assert Tai64nClock(None).next(seconds(theirs) + 0.008) == theirs


def test_it_increases_within_one_instant_and_when_the_clock_goes_back() -> None:
    clock = Tai64nClock(None)
    stamps = [clock.next(wall) for wall in [NOW] * 200 + [NOW - 1e6] * 200 + [-5.0] + [NOW + 60] * 3]
    assert all(earlier < later for earlier, later in pairwise(stamps))
    assert seconds(stamps[-1]) == pytest.approx(NOW + 60, abs=0.1)


def test_a_restart_goes_on_after_the_mark() -> None:
    clock = Tai64nClock(None)
    mark = clock.reserve(NOW)
    assert mark is not None
    last = clock.next(NOW)
    assert last < mark
    assert Tai64nClock(mark).next(NOW - 1e6) > mark


def test_a_new_mark_is_asked_for_only_when_the_old_one_runs_out() -> None:
    clock = Tai64nClock(None)
    marks = []
    for step in range(600):
        wall = NOW + step
        if (mark := clock.reserve(wall)) is not None:
            marks.append(mark)
        assert clock.next(wall) < marks[-1]
    assert len(marks) == pytest.approx(600 / RESERVE_SECONDS, abs=1)


def test_a_clock_that_went_back_does_not_ask_for_a_mark_every_time() -> None:
    mark = Tai64nClock(None).reserve(NOW)
    clock = Tai64nClock(mark)
    marks = 0
    for _ in range(630):
        marks += clock.reserve(NOW - 3600) is not None
        clock.next(NOW - 3600)
    assert marks == pytest.approx(10, abs=1)


def test_restarting_in_a_loop_does_not_run_away_from_the_clock() -> None:
    mark: bytes | None = None
    for number in range(1000):
        wall = NOW + 2 * number
        clock = Tai64nClock(mark)
        mark = clock.reserve(wall) or mark
        clock.next(wall)
    assert mark is not None
    assert seconds(mark) < NOW + 2000 + 2 * RESERVE_SECONDS


@pytest.mark.parametrize("mark", [b"", bytes(11), bytes(13), bytes(12), b"\xff" * 12, b"\x40" + bytes(7) + b"\xff" * 4])
def test_a_damaged_mark_is_refused(mark: bytes) -> None:
    with pytest.raises(DecodeError):
        Tai64nClock(mark)
