"""A router in the middle whose next link takes less than a full frame of ours, as those of many VPNs do."""

from __future__ import annotations

import os
from ipaddress import IPv4Address

import pytest

from omninervous.lab.namespaces import Lab
from omninervous.lab.topology import Host, join
from tests.netns.edges import Pair, all_answered, ping, transfer, vip, wait_for

NARROW = 1400


@pytest.fixture
def pair(lab: Lab) -> Pair:
    a, router, b = (lab.namespace(role) for role in ("a", "router", "b"))
    hosts = []
    for number, namespace in enumerate((a, b), start=1):
        join(namespace, "eth0", router, f"port{number}")
        namespace.ip_batch("link set eth0 up", f"address add 10.77.{number}.2/24 dev eth0")
        router.ip_batch(f"link set port{number} up", f"address add 10.77.{number}.1/24 dev port{number}")
        namespace.ip("route", "add", "default", "via", f"10.77.{number}.1")
        hosts.append(Host(namespace, "eth0", IPv4Address(f"10.77.{number}.2")))
    router.ip("link", "set", "port2", "mtu", str(NARROW))
    router.sysctl({"net.ipv4.ip_forward": 1})
    return Pair(lab, (hosts[0], hosts[1]))


@pytest.mark.parametrize("lane", ["--ebpf=auto", "--ebpf=off", "--engine=reference"])
def test_streams_and_full_frames_cross(pair: Pair, lane: str) -> None:
    pair.start_a(lane).wait_ready()
    pair.start_b(lane).wait_ready()
    pair.a.wait_for_peer()
    pair.b.wait_for_peer()
    a, b = (host.namespace for host in pair.hosts)
    full = str(pair.a.status()["interface"]["mtu"] - 28)
    assert ping(a, vip(pair.b)).loss == 0

    def crosses() -> bool:
        done = a.run("ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", full, vip(pair.b), check=False)
        return done.returncode == 0

    wait_for("a full frame crosses", crosses, 30.0)
    all_answered(a, vip(pair.b), 20, "-i", "0.1", "-M", "do", "-s", full)
    for daemon in (pair.a, pair.b):
        assert "path_mtu" in {each["code"] for each in daemon.status()["problems"]}
    data = os.urandom(4_000_000)
    assert transfer(a, b, vip(pair.b), data) == data
