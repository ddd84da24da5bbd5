"""The replay window: the kernel's own sequences, and its edges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from omninervous.core.replay import REPLAY_WINDOW, ReplayWindow
from omninervous.wire.transport import SEQUENCE_LIMIT

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "replay.json").read_text())


def taken(window: ReplayWindow, sequence: int) -> bool:
    """As a session does it: the limit first, then the window, asked and told."""
    if sequence >= SEQUENCE_LIMIT:
        return False
    expected = window.check(sequence)
    assert window.accept(sequence) is expected
    return expected


def test_it_answers_as_the_kernels_selftest_wants() -> None:
    window = ReplayWindow()
    for number, (sequence, accepted) in enumerate(VECTORS["steps"], 1):
        assert taken(window, sequence) is bool(accepted), f"step {number}"


@pytest.mark.parametrize("bulk", VECTORS["bulk"])
def test_it_answers_as_the_kernels_bulk_tests_want(bulk: dict[str, Any]) -> None:
    window = ReplayWindow()
    run = bulk["accepted"]
    assert all(taken(window, sequence) for sequence in range(run["start"], run["stop"], run["step"]))
    for sequence, accepted in bulk["then"]:
        assert taken(window, sequence) is bool(accepted)


def test_the_window_holds_exactly_its_size() -> None:
    window = ReplayWindow()
    assert window.accept(100_000)
    assert not window.check(100_000 - REPLAY_WINDOW)
    assert window.accept(100_000 - REPLAY_WINDOW + 1)
    assert window.highest == 100_000


def test_nothing_was_received_at_first() -> None:
    window = ReplayWindow()
    assert window.highest == -1
    assert window.accept(0)
    assert window.highest == 0


def test_asking_changes_nothing() -> None:
    window = ReplayWindow()
    assert window.check(7)
    assert window.check(7)
    assert window.highest == -1


@pytest.mark.parametrize("step", [1, 63, 64, 65, 4096, 8191, 8192, 1 << 40])
def test_memory_stays_bounded_at_any_pace(step: int) -> None:
    window = ReplayWindow()
    for number in range(20_000):
        assert window.accept(number * step)
    assert len(window._blocks) <= REPLAY_WINDOW // 64 + 1
