"""The rate limiter: a burst, a rate, a bounded table, and one key per machine."""

from __future__ import annotations

import pytest

from omninervous.core.ratelimit import RateLimiter, source_key


def test_a_burst_passes_and_then_the_rate_does() -> None:
    limiter = RateLimiter(rate=10, burst=10)
    assert sum(limiter.allow(0.0, "a") for _ in range(50)) == 10
    assert not limiter.allow(0.09, "a")
    assert limiter.allow(0.11, "a")
    assert sum(limiter.allow(1 + number / 100, "a") for number in range(1000)) == pytest.approx(110, abs=2)


def test_sources_do_not_disturb_each_other() -> None:
    limiter = RateLimiter(rate=1, burst=1)
    assert limiter.allow(0.0, "a")
    assert not limiter.allow(0.0, "a")
    assert limiter.allow(0.0, "b")


def test_refusals_do_not_extend_the_ban() -> None:
    limiter = RateLimiter(rate=1, burst=1)
    assert limiter.allow(0.0, "a")
    assert not any(limiter.allow(number / 10, "a") for number in range(10))
    assert limiter.allow(1.05, "a")


def test_a_clock_that_goes_back_gives_nothing() -> None:
    limiter = RateLimiter(rate=1, burst=1)
    assert limiter.allow(100.0, "a")
    assert not limiter.allow(50.0, "a")
    assert not limiter.allow(50.5, "a")


def test_the_table_is_bounded_and_forgets_who_was_silent_longest() -> None:
    limiter = RateLimiter(rate=1, burst=1, capacity=3)
    for name in ("a", "b", "c"):
        assert limiter.allow(0.0, name)
    assert not limiter.allow(0.0, "a")  # heard again: now "b" is the oldest
    assert limiter.allow(0.0, "d")
    assert len(limiter) == 3
    assert not limiter.allow(0.0, "a")
    assert limiter.allow(0.0, "b")


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002::/64"),
        ("2001:db8:1:2::ffff", "2001:0db8:0001:0002::/64"),
        ("2001:db8:1:3::1", "2001:0db8:0001:0003::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::1", "0000:0000:0000:0000::/64"),
    ],
)
def test_a_machine_has_one_key(host: str, key: str) -> None:
    assert source_key(host) == key
