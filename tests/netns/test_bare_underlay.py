"""An underlay without Ethernet headers, where no program of the kernel's lane sees a datagram: a VPN is the way out.

a wg0 ==(wireguard-go over eth0)== wg0 router port2 ---- eth0 b
"""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from omninervous.lab.namespaces import Lab
from omninervous.lab.topology import Host, join
from omninervous.lab.wireguard import WireGuardGo, WireGuardPeer
from tests.netns.edges import Pair, ping, vip, wait_for


@pytest.fixture
def pair(lab: Lab) -> Pair:
    a, router, b = (lab.namespace(role) for role in ("a", "router", "b"))
    join(a, "eth0", router, "port1")
    join(b, "eth0", router, "port2")
    a.ip_batch("link set eth0 up", "address add 10.77.1.2/24 dev eth0")
    b.ip_batch("link set eth0 up", "address add 10.77.2.2/24 dev eth0", "route add default via 10.77.2.1")
    for number in (1, 2):
        router.ip_batch(f"link set port{number} up", f"address add 10.77.{number}.1/24 dev port{number}")
    router.sysctl({"net.ipv4.ip_forward": 1})
    ours = WireGuardGo(lab, a, "vpn-a", "10.88.0.2/24", 40000)
    theirs = WireGuardGo(lab, router, "vpn-router", "10.88.0.1/24", 40000)
    ours.set_peer(WireGuardPeer(theirs.public_key, "0.0.0.0/0", endpoint="10.77.1.1:40000"))
    theirs.set_peer(WireGuardPeer(ours.public_key, "10.88.0.2/32"))
    a.ip("route", "add", "default", "dev", "wg0")
    return Pair(lab, (Host(a, "wg0", IPv4Address("10.88.0.2")), Host(b, "eth0", IPv4Address("10.77.2.2"))))


def lanes(pair: Pair) -> tuple[list[int], list[int]]:
    (seen_by_a,), (seen_by_b,) = pair.a.peers(), pair.b.peers()
    return seen_by_a["lanes"], seen_by_b["lanes"]


def test_single_frames_take_userspace_and_the_kernels_lane_once_it_covers_everything(pair: Pair) -> None:
    pair.start()
    a, b = (host.namespace for host in pair.hosts)
    wait_for("lanes beside the base", lambda: all(len(each) > 1 for each in lanes(pair)))
    assert not any(8 in each for each in lanes(pair))
    assert "no Ethernet header" in pair.a.status()["reflex"]["because"]
    for where, other in ((a, pair.b), (b, pair.a)):
        assert ping(where, vip(other), 10).loss == 0
    # The way out is the wire itself from now on; sessions and daemons stay.
    a.ip_batch("route replace default via 10.77.1.1 dev eth0")
    wait_for("the kernel's lane", lambda: all(8 in each for each in lanes(pair)), 30.0)
    wait_for("a path beside the VPN", lambda: ping(a, vip(pair.b), 2).loss == 0)
    a.ip_batch("route replace default dev wg0")
    wait_for("userspace again", lambda: not any(8 in each for each in lanes(pair)), 30.0)
    wait_for("the path by the VPN", lambda: ping(b, vip(pair.a), 2).loss == 0)
    assert ping(a, vip(pair.b), 10).loss == 0
