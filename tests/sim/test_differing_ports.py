"""NATs whose ports differ from destination to destination, but can be guessed or told: machines meet all the same."""

from __future__ import annotations

import pytest

from omninervous.core.natview import GUESSES_PER_ATTEMPT
from omninervous.wire.address import Endpoint
from tests.sim.simnet import Edge, Nat
from tests.sim.test_cluster import Clusternet

SOON = 60.0
"""Simulated seconds. Each side must first hear from two hosts how it is seen, and learn how the other is."""


def counting(host: str) -> Nat:
    return Nat(host, symmetric=True, counting=True)


def met(net: Clusternet, *edges: Edge) -> bool:
    return net.world.run(SOON, until=lambda: net.all_connected(list(edges)))


def hosts(of: Edge, by: Edge) -> set[str]:
    """Where one edge knows that another may be, from the Nucleus."""
    known = by.node._fabric._neighbours.roster.find(of.identity.x25519_public)
    assert known is not None
    return {each.host for each in known.signalled}


@pytest.mark.parametrize("calls", ["the one behind it", "the other", "both"])
def test_the_next_port_is_guessed(calls: str) -> None:
    net = Clusternet()
    net.public("p", "192.0.2.9")
    a = net.edge("a", eager=calls != "the other", nat=counting("203.0.113.77"))
    b = net.edge("b", eager=calls != "the one behind it", nat=Nat("203.0.113.78"))
    assert met(net, a, b), net.world.context()
    a.send_to(b, "through")
    net.run(0.1)
    assert b.heard(a, "through")
    status = b.peer(a)
    assert status is not None and status.path is not None and status.path.kind == "nat"


def test_two_that_count_do_not_use_up_each_others_ports() -> None:
    net = Clusternet()
    net.public("p", "192.0.2.9")
    first, second = counting("203.0.113.77"), counting("203.0.113.78")
    a, b = net.edge("a", nat=first), net.edge("b", nat=second)
    net.run(120.0)
    assert not a.connected(b)
    assert len(first._out) < 2 * GUESSES_PER_ATTEMPT and len(second._out) < 2 * GUESSES_PER_ATTEMPT


def test_ports_at_random_are_not_searched() -> None:
    net = Clusternet()
    net.public("p", "192.0.2.9")
    home = Nat("203.0.113.78")
    a, b = net.edge("a", nat=Nat("203.0.113.77", symmetric=True)), net.edge("b", nat=home)
    net.run(120.0)
    assert not a.connected(b)
    towards = [target for _, target in home._contacted if target.host == "203.0.113.77"]
    assert 0 < len(towards) <= 2, towards


def test_only_a_host_that_others_have_seen_is_searched() -> None:
    """Whoever names a victim's address as his own makes nobody knock at its ports one after another."""
    net = Clusternet()
    home = Nat("203.0.113.78")
    b = net.edge("b", nat=home)
    named = [Endpoint("198.51.100.99", port) for port in (7000, 7001)]
    a = net.edge("a", nat=counting("203.0.113.77"))
    a.do(lambda node, now: node.set_candidates(now, named))
    net.run(120.0)
    assert not a.connected(b)
    assert {target for _, target in home._contacted if target.host == "198.51.100.99"} == set(named)


def test_who_moves_away_from_such_a_nat_names_its_ports_no_more() -> None:
    """Not even those that were seen by machines which are gone."""
    net = Clusternet()
    p, *others = [net.public(f"p{n}", f"192.0.2.{n}") for n in (7, 8, 9)]
    a = net.edge("a", nat=counting("203.0.113.77"))
    net.run(60.0)
    assert len({what for _, what in a.node.views()}) == 4
    assert hosts(a, by=p) == {"203.0.113.77", "192.168.0.4"}
    for other in others:
        other.crash()
    a.move(Endpoint("192.0.2.10", 51820), notice=True)
    net.run(60.0)
    assert {what for _, what in a.node.views()} == {a.address} and hosts(a, by=p) == {"192.0.2.10"}


def test_a_member_cannot_make_another_name_a_victims_address() -> None:
    net = Clusternet()
    p = net.public("p", "192.0.2.9")
    a = net.edge("a")
    net.run(30.0)
    for liar, port in (("192.0.2.7", 7000), ("192.0.2.8", 7001)):
        a.node._ctx.note_view(liar.encode(), Endpoint(liar, 51820), Endpoint("192.0.2.99", port))
    a.do(lambda node, now: node.set_candidates(now, [a.address, Endpoint("192.168.0.2", 7)]))
    net.run(60.0)
    assert hosts(a, by=p) == {"203.0.113.2", "192.168.0.2"}


class Divided(Nat):
    """One that gives a machine another port towards some hosts: where another's old flows have the usual one."""

    taken = ("203.0.113.1", "192.0.2.9")

    def outbound(self, now: float, inner: Endpoint, target: Endpoint) -> Endpoint:
        usual = super().outbound(now, inner, target)
        if target.host not in self.taken:
            return usual
        self._in[usual.port + 5000] = inner
        self._contacted[usual.port + 5000, target] = now + self.expiry
        return usual._replace(port=usual.port + 5000)


def test_a_port_that_only_members_see_is_named() -> None:
    net = Clusternet()
    a = net.edge("a")
    net.public("p", "192.0.2.9")
    b = net.edge("b", nat=Divided("203.0.113.77"))
    assert met(net, a, b), net.world.context()
