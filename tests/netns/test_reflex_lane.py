"""The reflex lane between two machines, by its programs alone: nobody reads the TAPs, so frames came by the kernel."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest

from omninervous.lab.topology import Host
from tests.netns.reflex_ends import ReflexEnd, connect

Ends = Callable[..., tuple[ReflexEnd, ReflexEnd]]


@pytest.fixture
def ends(pair_lan: tuple[Host, Host]) -> Generator[Ends, None, None]:
    """Makes two connected ends, for a mechanism and an IP version of the underlay."""
    made: list[ReflexEnd] = []

    def make(mechanism: str = "tc", *, v6: bool = False) -> tuple[ReflexEnd, ReflexEnd]:
        made.extend(ReflexEnd.create(host, number, mechanism) for number, host in enumerate(pair_lan, 1))
        connect(made[0], made[1], v6=v6)
        return made[0], made[1]

    yield make
    for end in made:
        end.close()


@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("mechanism", ["tc", "xdp"])
def test_both_ip_versions_pass_by_every_mechanism(ends: Ends, mechanism: str, v6: bool) -> None:
    a, _ = ends(mechanism, v6=v6)
    for size in (0, 8, 56, 512, 1252):
        a.host.namespace.run("ping", "-c", "3", "-i", "0.01", "-W", "2", "-s", str(size), "10.200.0.2")
    a.host.namespace.run("ping", "-c", "3", "-i", "0.01", "-W", "2", "-s", "1232", "fd00::2")
    assert a.counter("tx_packets") >= 18
    assert a.counter("rx_packets") >= 18
