from __future__ import annotations

from omninervous.core.timers import Timers, earliest


def test_what_is_due_comes_out_once_and_in_order() -> None:
    timers: Timers[str] = Timers()
    for key, at in (("late", 3.0), ("first", 1.0), ("second", 1.0), ("never", None)):
        timers.set(key, at)
    assert timers.next() == 1.0
    assert timers.pop_due(2.0) == ["first", "second"]
    assert timers.pop_due(2.0) == [] and timers.next() == 3.0


def test_setting_again_replaces_and_none_takes_away() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 1.0)
    timers.set("a", 5.0)
    timers.set("b", 2.0)
    timers.set("b", None)
    assert timers.pop_due(4.0) == [] and timers.next() == 5.0
    timers.set("a", 2.0)
    assert timers.pop_due(9.0) == ["a"] and timers.next() is None


def test_stale_entries_do_not_pile_up() -> None:
    timers: Timers[str] = Timers()
    for step in range(10_000):
        timers.set("a", float(step))
    assert len(timers._heap) < 100 and timers.next() == 9999.0


def test_earliest_ignores_none() -> None:
    assert earliest(None, 2.0, 1.0) == 1.0 and earliest(None) is None and earliest() is None
