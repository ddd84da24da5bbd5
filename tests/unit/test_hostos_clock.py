"""The host's clocks."""

from __future__ import annotations

import pytest

from omninervous.hostos import clock
from omninervous.hostos.clock import SuspendDetector


def test_time_on_the_boot_clock_does_not_go_back() -> None:
    first, second = clock.now(), clock.now()
    assert second.boot >= first.boot > 0 and first.wall > 1.7e9


def test_suspend_is_noticed_once_and_small_differences_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = iter([100.0, 100.001, 100.0, 3700.0, 3700.0])
    monkeypatch.setattr(SuspendDetector, "_read", staticmethod(lambda: next(offsets)))
    detector = SuspendDetector()
    assert [detector.slept() for _ in range(4)] == [0.0, 0.0, 3600.0, 0.0]


def test_a_running_machine_has_not_slept() -> None:
    assert SuspendDetector().slept() == 0.0
