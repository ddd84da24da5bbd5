"""A stock WireGuard device, the newest wireguard-go, as a peer at Layer 3.

ours omni0 10.9.0.1 --- a eth0 ----------- eth0 b --- wg0 10.9.0.2 theirs
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from omninervous.lab.daemons import Daemon
from omninervous.lab.evidence import parse_iperf3, parse_ping
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.process import poll_until
from omninervous.lab.topology import Host
from omninervous.lab.wireguard import WireGuardGo, WireGuardPeer, generate_psk
from tests.netns.edges import all_answered

OURS, THEIRS = "10.9.0.1", "10.9.0.2"
PORT = 51820
REKEY_SECONDS = 120


@dataclass(frozen=True)
class Tunnel:
    """Both ends, and the machines they run on."""

    ours: Daemon
    theirs: WireGuardGo
    a: Host
    b: Host
    our_key: str


def build(
    lab: Lab,
    hosts: tuple[Host, Host],
    *,
    initiator: str = "ours",
    psk: tuple[str, str] | None = None,
    ipv6: bool = False,
) -> Tunnel:
    """Start both ends; only the initiator knows the other's endpoint. `psk`: ours and theirs."""
    a, b = hosts
    theirs = WireGuardGo(lab, b.namespace, "wireguard-go", f"{THEIRS}/24", PORT)
    ours = Daemon(lab, a.namespace, "ours")
    ours.init()
    our_key: str = ours.ask("identity")["wireguard_public_key"]
    endpoints = [f"[{host.address6}]:{PORT}" if ipv6 else f"{host.address}:{PORT}" for host in hosts]
    arguments = ["--peer", theirs.public_key, "--allowed-ips", f"{THEIRS}/32", "--vip", f"{OURS}/24"]
    if initiator == "ours":
        arguments += ["--endpoint", endpoints[1]]
    if psk is not None:
        arguments += ["--psk-file", str(write(lab.directory / "psk", psk[0]))]
    theirs.set_peer(
        WireGuardPeer(
            our_key,
            f"{OURS}/32",
            endpoint=endpoints[0] if initiator == "theirs" else None,
            psk=psk[1] if psk else None,
        )
    )
    ours.launch(*arguments, "--port", str(PORT)).wait_ready()
    return Tunnel(ours, theirs, a, b, our_key)


@pytest.mark.parametrize("initiator", ["ours", "theirs"])
@pytest.mark.parametrize("with_psk", [False, True], ids=["no psk", "psk"])
def test_ping_and_iperf3_pass_whoever_begins(
    lab: Lab, pair_lan: tuple[Host, Host], initiator: str, with_psk: bool
) -> None:
    psk = generate_psk() if with_psk else None
    tunnel = build(lab, pair_lan, initiator=initiator, psk=(psk, psk) if psk else None)
    ends = [(tunnel.a.namespace, THEIRS), (tunnel.b.namespace, OURS)]
    first, second = ends if initiator == "ours" else reversed(ends)
    assert_pings(*first)
    assert_pings(*second)
    for (source, target), sink in ((ends[0], tunnel.b.namespace), (ends[1], tunnel.a.namespace)):
        assert iperf3(lab, source, sink, target) > 0
    assert initiators(tunnel) == [initiator == "ours"]


def test_the_underlay_may_be_ipv6(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    tunnel = build(lab, pair_lan, ipv6=True)
    assert_pings(tunnel.a.namespace, THEIRS)


def test_another_psk_is_another_network(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    tunnel = build(lab, pair_lan, psk=(generate_psk(), generate_psk()))
    assert not passes(tunnel.a.namespace, THEIRS)
    assert tunnel.theirs.handshake_of(tunnel.our_key) == 0


def test_only_allowed_addresses_get_in(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    tunnel = build(lab, pair_lan)
    assert_pings(tunnel.a.namespace, THEIRS)
    tunnel.b.namespace.ip("address", "add", "10.9.0.77/24", "dev", "wg0")
    lost = tunnel.b.namespace.run("ping", "-c", "2", "-i", "0.1", "-W", "0.5", "-I", "10.9.0.77", OURS, check=False)
    assert parse_ping(lost.stdout).received == 0
    assert tunnel.ours.status()["drops"]["source_guard"] >= 2


def test_a_new_handshake_of_theirs_replaces_the_session_under_traffic(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    tunnel = build(lab, pair_lan)
    assert_pings(tunnel.a.namespace, THEIRS)
    earlier = session_ids(tunnel)
    tunnel.theirs.expire_sessions()
    assert_pings(tunnel.b.namespace, OURS)
    assert_pings(tunnel.a.namespace, THEIRS)
    assert session_ids(tunnel) - earlier
    assert False in initiators(tunnel)


def test_we_follow_them_to_another_port_and_another_address(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    tunnel = build(lab, pair_lan)
    assert_pings(tunnel.a.namespace, THEIRS)
    tunnel.theirs.listen(PORT + 7)
    assert_pings(tunnel.b.namespace, OURS)
    assert_pings(tunnel.a.namespace, THEIRS)
    assert peer(tunnel)["endpoint"] == f"{tunnel.b.address}:{PORT + 7}"
    move(tunnel.b, "10.77.0.99")
    assert_pings(tunnel.b.namespace, OURS)
    assert_pings(tunnel.a.namespace, THEIRS)
    assert peer(tunnel)["endpoint"] == f"10.77.0.99:{PORT + 7}"


def test_they_follow_us_to_another_address(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    tunnel = build(lab, pair_lan)
    assert_pings(tunnel.a.namespace, THEIRS)
    move(tunnel.a, "10.77.0.88")
    assert_pings(tunnel.a.namespace, THEIRS)
    assert_pings(tunnel.b.namespace, OURS)
    assert tunnel.theirs.endpoint_of(tunnel.our_key) == f"10.77.0.88:{PORT}"


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("initiator", ["ours", "theirs"])
def test_a_session_is_rekeyed_after_two_minutes_and_no_ping_is_lost(
    lab: Lab, pair_lan: tuple[Host, Host], initiator: str
) -> None:
    tunnel = build(lab, pair_lan, initiator=initiator)
    source, target = (tunnel.a.namespace, THEIRS) if initiator == "ours" else (tunnel.b.namespace, OURS)
    assert_pings(source, target)
    begun, earlier = time.monotonic(), session_ids(tunnel)
    while time.monotonic() - begun < REKEY_SECONDS + 15:
        assert_pings(source, target)
    assert session_ids(tunnel) - earlier
    assert initiators(tunnel)[-1] is (initiator == "ours")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def passes(source: Namespace, target: str, seconds: float = 6.0) -> bool:
    """Whether a ping comes back at last; the first ones may be what starts a handshake."""
    return poll_until(lambda: source.run("ping", "-c", "1", "-W", "0.5", target, check=False).returncode == 0, seconds)


def assert_pings(source: Namespace, target: str) -> None:
    assert passes(source, target)
    all_answered(source, target, 10, "-i", "0.02")


def iperf3(lab: Lab, source: Namespace, sink: Namespace, target: str) -> float:
    server = lab.start(sink, f"iperf3-{sink.role}", ["iperf3", "-s", "-1", "--forceflush"])
    server.wait_for_output("Server listening", 5.0)
    done = source.run("iperf3", "-c", target, "-t", "1", "-J", "--connect-timeout", "3000", check=False)
    server.stop()
    return parse_iperf3(done.stdout).bits_per_second


def move(host: Host, address: str) -> None:
    """Give the machine another address on its wire."""
    host.namespace.ip_batch(
        f"address add {address}/24 dev {host.interface}", f"address del {host.address}/24 dev {host.interface}"
    )
    # The kernel takes the secondary address away together with its primary one.
    host.namespace.run("ip", "address", "replace", f"{address}/24", "dev", host.interface)


def peer(tunnel: Tunnel) -> dict[str, Any]:
    (only,) = tunnel.ours.peers()
    return only


def session_ids(tunnel: Tunnel) -> set[str]:
    return {session["id"] for session in peer(tunnel)["sessions"]}


def initiators(tunnel: Tunnel) -> list[bool]:
    """For each session, whether we began it."""
    return [session["initiator"] for session in peer(tunnel)["sessions"]]
