"""Two machines without a Nucleus: `--peer` and `--endpoint`."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from omninervous.lab.daemons import Daemon
from omninervous.lab.namespaces import Lab
from omninervous.lab.topology import Host
from tests.netns.edges import Pair, ping, ula, vip, wait_for


@pytest.fixture
def pair(lab: Lab, pair_lan: tuple[Host, Host]) -> Pair:
    return Pair(lab, pair_lan)


def test_the_users_two_commands_make_one_ethernet_segment(pair: Pair) -> None:
    pair.start()
    a, b = (host.namespace for host in pair.hosts)
    for where, other in ((a, pair.b), (b, pair.a)):
        for address in (vip(other), ula(other)):
            assert ping(where, address).loss == 0
    (seen_by_a,), (seen_by_b,) = pair.a.peers(), pair.b.peers()
    assert (seen_by_a["identity"], seen_by_b["identity"]) == (pair.key_b, pair.key_a)
    assert {each["id"] for each in seen_by_a["sessions"]} & {each["id"] for each in seen_by_b["sessions"]}
    assert seen_by_a["kind"] == "pair" and seen_by_a["path"]["kind"] == "lan" and seen_by_a["lanes"][0] == 0
    assert seen_by_a["endpoint"] == f"{pair.hosts[1].address}:51820"


def test_frames_that_are_no_ip_and_broadcasts_cross(pair: Pair) -> None:
    pair.start()
    a, b = (host.namespace for host in pair.hosts)
    mac_a = bytes.fromhex(pair.a.status()["interface"]["mac"].replace(":", ""))
    with a.packet_socket("omni0") as sender, b.packet_socket("omni0") as receiver:
        receiver.settimeout(10)
        sent = b"\xff" * 6 + mac_a + b"\x88\xb5" + os.urandom(1300)
        sender.send(sent)
        while receiver.recv(2000) != sent:
            pass


def test_frames_of_the_full_mtu_cross(pair: Pair) -> None:
    pair.start()
    size = str(pair.a.status()["interface"]["mtu"] - 28)
    done = pair.hosts[0].namespace.run("ping", "-c", "2", "-M", "do", "-s", size, "-W", "2", vip(pair.b))
    assert " 0% packet loss" in done.stdout


def test_one_endpoint_is_enough(pair: Pair) -> None:
    pair.a.launch("--peer", pair.key_b).wait_ready()
    pair.start_b().wait_ready()
    pair.a.wait_for_peer()
    assert ping(pair.hosts[0].namespace, vip(pair.b)).loss == 0


def test_the_underlay_can_be_ipv6(pair: Pair) -> None:
    there = pair.hosts[1].address6
    pair.a.launch("--peer", pair.key_b, "--endpoint", f"[{there}]:51820").wait_ready()
    pair.b.launch("--peer", pair.key_a).wait_ready()
    (peer,) = pair.a.wait_for_peer()
    assert peer["endpoint"] == f"[{there}]:51820"
    assert ping(pair.hosts[0].namespace, vip(pair.b)).loss == 0


def test_explicit_addresses_are_used(pair: Pair) -> None:
    pair.start_a("--vip", "10.99.0.1/24").wait_ready()
    pair.start_b("--vip", "10.99.0.2/24").wait_ready()
    pair.a.wait_for_peer()
    assert ping(pair.hosts[0].namespace, "10.99.0.2").loss == 0
    assert pair.b.status()["vip"] == {"address": "10.99.0.2", "prefix": 24, "source": "explicit", "derivation": None}


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restarted_peer_is_back(pair: Pair, end: str) -> None:
    pair.start()
    there = vip(pair.b)
    a = pair.hosts[0].namespace
    assert ping(a, there).loss == 0
    getattr(pair.b.process, end)()
    pair.start_b().wait_ready()
    wait_for("ping after the restart", lambda: ping(a, there, 1).received)
    assert vip(pair.b) == there, "the address follows from the identity"


def test_a_moved_peer_is_followed(pair: Pair) -> None:
    pair.start()
    a, b = (host.namespace for host in pair.hosts)
    there = vip(pair.b)
    b.ip_batch("address del 10.77.0.2/24 dev eth0", "address add 10.77.0.99/24 dev eth0")
    assert ping(b, vip(pair.a), 10).received >= 5
    wait_for("the new endpoint", lambda: pair.a.peers()[0]["endpoint"] == "10.77.0.99:51820")
    assert ping(a, there).loss == 0


def test_a_pre_shared_key_must_be_the_same(pair: Pair, tmp_path: Path) -> None:
    files = [tmp_path / "one", tmp_path / "other"]
    for file in files:
        file.write_text(base64.b64encode(os.urandom(32)).decode())
        file.chmod(0o600)
    one, other = map(str, files)
    pair.start_a("--psk-file", one).wait_ready()
    pair.start_b("--psk-file", other).wait_ready()
    wait_for("the problem in status", lambda: "psk_mismatch" in str(pair.b.status()["problems"]))
    assert pair.a.peers()[0]["state"] != "up" and pair.b.peers()[0]["state"] != "up"
    pair.b.process.stop()
    pair.start_b("--psk-file", one).wait_ready()
    pair.b.wait_for_peer()
    assert ping(pair.hosts[0].namespace, vip(pair.b)).loss == 0


def test_an_endpoint_can_be_a_name_and_two_daemons_share_a_machine(lab: Lab) -> None:
    machine = lab.namespace("machine")
    one, two = Daemon(lab, machine, "one"), Daemon(lab, machine, "two")
    key_one, key_two = one.init(), two.init()
    one.launch("--peer", key_two, "--dev", "fabric1", "--port", "7001").wait_ready()
    two.launch("--peer", key_one, "--endpoint", "localhost:7001", "--dev", "fabric2", "--port", "7002").wait_ready()
    (peer,) = one.wait_for_peer()
    assert peer["identity"] == key_two and peer["endpoint"].endswith(":7002")
    assert {"fabric1", "fabric2"} <= set(machine.ip("-br", "link").split())
