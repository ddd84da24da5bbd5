"""The lifetime of NAT bindings is learned from what a silence does."""

from __future__ import annotations

import pytest

from omninervous.core.lifetime import FIRST_INTERVAL, INTERVALS, BindingLifetime


def live(lifetime: BindingLifetime, binding: float, seconds: float, boot: float = 0.0) -> float:
    """Idle on a path whose binding lives so long; the time afterwards."""
    end = boot + seconds
    while boot < end:
        silence = lifetime.interval * 0.95
        boot += silence
        if silence < binding:
            lifetime.handle_answer(boot, silence)
        else:
            lifetime.handle_silence(boot, silence)
            lifetime.handle_found(boot + 1.0)
    return boot


@pytest.mark.parametrize("binding", [12.0, 20.0, 30.0, 60.0, 100.0, 1e9])
def test_keepalives_become_as_rare_as_the_binding_allows(binding: float) -> None:
    lifetime = BindingLifetime()
    live(lifetime, binding, 1800.0)
    assert lifetime.interval < binding
    longer = [interval for interval in INTERVALS if interval > lifetime.interval]
    assert not longer or longer[0] * 0.95 >= 0.75 * binding or lifetime.interval == INTERVALS[-1]


def test_one_answer_is_not_enough_and_traffic_says_nothing() -> None:
    lifetime = BindingLifetime()
    lifetime.handle_answer(30.0, 25.0)
    assert lifetime.interval == FIRST_INTERVAL
    for second in range(100):
        lifetime.handle_answer(31.0 + second, 1.0)
    assert lifetime.interval == FIRST_INTERVAL


def test_a_peer_that_is_gone_says_nothing_about_the_path() -> None:
    lifetime = BindingLifetime()
    lifetime.handle_silence(25.0, 25.0)
    lifetime.handle_found(300.0)
    assert lifetime.interval == FIRST_INTERVAL


def test_a_limit_is_forgiven_after_an_hour() -> None:
    lifetime = BindingLifetime()
    boot = live(lifetime, 30.0, 600.0)
    assert lifetime.interval == 25.0
    boot = live(lifetime, 1e9, 2000.0, boot)
    assert lifetime.interval == 25.0
    live(lifetime, 1e9, 3600.0, boot)
    assert lifetime.interval == INTERVALS[-1]
