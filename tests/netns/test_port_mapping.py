"""A real router opens a port for an edge. Between two NATs that meet in no other way that makes the pair direct."""

from __future__ import annotations

import time

import pytest

from omninervous.lab.daemons import PAIR_VIPS, Daemon, start_cluster
from omninervous.lab.namespaces import Lab
from omninervous.lab.nat import NatKind
from omninervous.lab.topology import TwoNats, two_nats
from tests.netns.edges import ping, wait_for
from tests.netns.routers import OUTSIDE, forget_all, mappings, run_miniupnpd, start_miniupnpd


@pytest.fixture
def symmetric(lab: Lab) -> TwoNats:
    """Two NATs that use another port for each destination, and let in who was sent to: no pair (`natsites.py`)."""
    return two_nats(lab, NatKind.SYMMETRIC, NatKind.SYMMETRIC)


def outsides(daemon: Daemon) -> list[str]:
    """What the daemon announces to peers."""
    gateways = daemon.ask("netcheck")["port_mapping"]["gateways"]
    return [each["outside"] for each in gateways if each["outside"]]


def mapped(daemon: Daemon) -> dict[str, str]:
    """The mapping that the daemon has."""

    def found() -> dict[str, str] | None:
        gateways = daemon.ask("netcheck")["port_mapping"]["gateways"]
        return next((each for each in gateways if each["outside"]), None)

    answer: dict[str, str] = wait_for("a mapping", found)
    return answer


ONLY_NAT_PMP = """
table inet old_router {
    chain input { type filter hook input priority -1; policy accept; udp dport 5351 @th,64,8 2 drop; }
}
"""
"""Requests of version 2, which is PCP, get no answer."""


@pytest.mark.parametrize(
    ("pcp", "upnp", "protocol"), [(True, True, "pcp"), (False, True, "upnp"), (True, False, "nat-pmp")]
)
def test_a_mapping_makes_the_pair_direct_and_goes_with_the_daemon(
    lab: Lab, symmetric: TwoNats, pcp: bool, upnp: bool, protocol: str
) -> None:
    if protocol == "nat-pmp":
        symmetric.nat_a.namespace.nft(ONLY_NAT_PMP)
    start_miniupnpd(lab, symmetric.internet, symmetric.nat_a, pcp=pcp, upnp=upnp)
    _, a, b = start_cluster(lab, symmetric)
    found = mapped(a)
    assert found["protocol"] == protocol and found["gateway"] == str(symmetric.nat_a.gateway)
    assert found["outside"].startswith(f"{OUTSIDE}:")
    assert str(symmetric.edge_a.address) in mappings(symmetric.nat_a)
    assert not [each for each in b.ask("netcheck")["port_mapping"]["gateways"] if each["outside"]]
    where = symmetric.edge_b.namespace
    wait_for("an answer from edge A", lambda: ping(where, str(PAIR_VIPS[0]), 1).received)
    (peer,) = b.peers()
    assert peer["path"]["endpoint"] == found["outside"]
    a.process.signal(15)
    assert a.process.wait(10.0) == 0
    assert mappings(symmetric.nat_a) == ""


def test_a_router_that_was_off_is_asked_again_when_it_says_that_it_is_back(lab: Lab, symmetric: TwoNats) -> None:
    """Without that it would be asked again after minutes."""
    box = symmetric.nat_a
    router = start_miniupnpd(lab, symmetric.internet, box, pcp=True, upnp=False, longest=20)
    _, a, _ = start_cluster(lab, symmetric)
    assert int(mapped(a)["seconds"]) <= 20
    router.kill()
    forget_all(box)
    wait_for("the end of the lease", lambda: not outsides(a), 60.0)
    run_miniupnpd(lab, box)
    assert mapped(a)
    assert str(symmetric.edge_a.address) in mappings(box)


def test_a_restarted_router_gets_the_mapping_back_at_once(lab: Lab, symmetric: TwoNats) -> None:
    """Its epoch says that it has lost it; the lease would have been renewed in five minutes."""
    box = symmetric.nat_a
    router = start_miniupnpd(lab, symmetric.internet, box, pcp=True, upnp=False)
    _, a, _ = start_cluster(lab, symmetric)
    assert int(mapped(a)["seconds"]) == 600
    router.kill()
    forget_all(box)
    time.sleep(5.0)  # an epoch may be wrong by two seconds
    run_miniupnpd(lab, box)
    wait_for("the mapping on the router", lambda: str(symmetric.edge_a.address) in mappings(box), 60.0)
    assert outsides(a)


def test_who_says_off_asks_nobody(lab: Lab, symmetric: TwoNats) -> None:
    start_miniupnpd(lab, symmetric.internet, symmetric.nat_a, pcp=True, upnp=True)
    _, a, _ = start_cluster(lab, symmetric, "--port-mapping", "off")
    assert a.ask("netcheck")["port_mapping"] == {"wanted": False, "gateways": []}
    assert mappings(symmetric.nat_a) == ""
    assert ping(symmetric.edge_b.namespace, str(PAIR_VIPS[0]), 10).received == 0


def test_a_reload_asks_and_gives_back(lab: Lab, symmetric: TwoNats) -> None:
    start_miniupnpd(lab, symmetric.internet, symmetric.nat_a, pcp=True, upnp=True)
    file = lab.directory / "edge.toml"
    file.write_text('[network]\nport_mapping = "off"\n')
    _, a, _ = start_cluster(lab, symmetric, "--config", str(file))
    file.write_text("")
    assert a.ask("reload") == {"applied": ["port_mapping"], "needs_restart": []}
    assert mapped(a)["outside"].startswith(f"{OUTSIDE}:")
    assert str(symmetric.edge_a.address) in mappings(symmetric.nat_a)
    file.write_text('[network]\nport_mapping = "off"\n')
    assert a.ask("reload") == {"applied": ["port_mapping"], "needs_restart": []}
    wait_for("the mapping's end", lambda: mappings(symmetric.nat_a) == "")
    assert a.ask("netcheck")["port_mapping"] == {"wanted": False, "gateways": []}
