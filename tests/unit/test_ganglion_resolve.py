"""DNS: what is looked up, when, and what a failure leaves."""

from __future__ import annotations

import asyncio

from omninervous.ganglion.options import HostPort
from omninervous.ganglion.resolve import NameCache, resolve
from omninervous.wire.address import Endpoint

HERE = (Endpoint("192.0.2.1", 5),)
THERE = (Endpoint("192.0.2.2", 5),)


def test_an_address_is_its_own_answer() -> None:
    assert asyncio.run(resolve(HostPort("192.0.2.1", 5), ipv6=False)) == HERE
    assert asyncio.run(resolve(HostPort("2001:db8::1", 5), ipv6=True)) == (Endpoint("2001:db8::1", 5),)
    assert asyncio.run(resolve(HostPort("2001:db8::1", 5), ipv6=False)) == ()


def test_localhost_resolves_and_a_bad_name_gives_nothing() -> None:
    assert Endpoint("127.0.0.1", 5) in asyncio.run(resolve(HostPort("localhost", 5), ipv6=True))
    assert asyncio.run(resolve(HostPort("no-such-host.invalid", 5), ipv6=True)) == ()
    assert asyncio.run(resolve(HostPort(".".join(["x" * 63] * 4), 5), ipv6=True)) == ()


def test_a_name_is_looked_up_at_once_and_not_while_it_is_reached() -> None:
    cache = NameCache(HostPort("host", 5))
    assert cache.wants_lookup(100.0, reachable=False)
    assert cache.done(100.0, HERE)
    assert not cache.wants_lookup(1e6, reachable=True)


def test_a_name_that_does_not_answer_is_looked_up_again_later() -> None:
    cache = NameCache(HostPort("host", 5))
    cache.done(100.0, HERE)
    assert not cache.wants_lookup(101.0, reachable=False)
    assert cache.wants_lookup(116.0, reachable=False)
    assert not cache.done(116.0, HERE), "the same answer is no change"
    assert cache.done(140.0, THERE)


def test_failures_wait_longer_and_longer_and_keep_the_old_answer() -> None:
    cache = NameCache(HostPort("host", 5))
    cache.done(0.0, HERE)
    waits = []
    for _ in range(8):
        assert not cache.done(1000.0, ())
        waits.append(cache.due - 1000.0)
    assert waits == sorted(waits) and waits[0] == 1.0 and waits[-1] == 30.0
    assert cache.endpoints == HERE


def test_an_address_is_resolved_once_and_one_lookup_runs_at_a_time() -> None:
    cache = NameCache(HostPort("192.0.2.1", 5))
    cache.busy = True
    assert not cache.wants_lookup(0.0, reachable=False)
    cache.done(0.0, HERE)
    assert not cache.wants_lookup(1e6, reachable=False)
