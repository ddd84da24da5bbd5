"""The kernel's WireGuard (Debian 12's 6.1, in a virtual machine) as a peer at Layer 3."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omninervous.lab.daemons import Daemon
from omninervous.lab.evidence import parse_iperf3, parse_ping
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.process import poll_until
from omninervous.lab.topology import Host
from omninervous.lab.wireguard import generate_psk
from tests.netns.edges import all_answered, wait_for
from tests.soak.guest import IPERF_PORTS, OURS, PORT, THEIRS, Guest, machine_beside_guest

pytestmark = [pytest.mark.soak, pytest.mark.timeout(420)]

REKEY_SECONDS = 120
REACH = f"until ping -c 1 -W 1 {OURS} >/dev/null; do :; done; echo reached"
PING = f"ping -c 10 {OURS} | tail -n 2; echo pinged"

Start = Callable[..., "Tunnel"]


class Tunnel:
    """Both ends: our daemon on machine `a`, the kernel in the guest."""

    def __init__(self, host: Host, ours: Daemon, guest: Guest) -> None:
        self.host, self.ours, self.guest = host, ours, guest

    @property
    def a(self) -> Namespace:
        return self.host.namespace

    def peer(self) -> dict[str, Any]:
        (only,) = self.ours.peers()
        return only

    def session_ids(self) -> set[str]:
        return {session["id"] for session in self.peer()["sessions"]}

    def assert_pings(self, count: int = 10, interval: float = 0.1) -> None:
        """The first one may be what starts a handshake; then none is lost."""
        alone = ("ping", "-c", "1", "-W", "1", THEIRS)
        assert poll_until(lambda: self.a.run(*alone, check=False).returncode == 0, 15.0)
        all_answered(self.a, THEIRS, count, "-i", str(interval), seconds=int(count * interval) + 20)


@pytest.fixture
def start(lab: Lab, guest_kernel: Path) -> Start:
    """`start(initiator, steps, psk=None, our_psk=psk)`: only the initiator knows the other's endpoint."""

    def make(initiator: str, steps: str, psk: str | None = None, our_psk: str | None = None) -> Tunnel:
        host, guest = machine_beside_guest(lab), Guest(lab, guest_kernel)
        ours = Daemon(lab, host.namespace, "ours")
        ours.init()
        arguments = ["--peer", guest.public_key, "--allowed-ips", f"{THEIRS}/32", "--vip", f"{OURS}/24"]
        if psk is not None:
            file = lab.directory / "psk"
            file.touch(0o600)
            file.write_text(our_psk or psk)
            arguments += ["--psk-file", str(file)]
        if initiator == "ours":
            arguments += ["--endpoint", guest.endpoint]
        our_key = ours.ask("identity")["wireguard_public_key"]
        if initiator == "ours":
            guest.boot(host, our_key, knows_us=False, psk=psk, steps=steps)
            ours.launch(*arguments, "--port", str(PORT)).wait_ready()
        else:
            ours.launch(*arguments, "--port", str(PORT)).wait_ready()
            guest.boot(host, our_key, knows_us=True, psk=psk, steps=steps)
        return Tunnel(host, ours, guest)

    return make


@pytest.mark.parametrize("initiator", ["ours", "theirs"])
@pytest.mark.parametrize("with_psk", [False, True], ids=["no psk", "psk"])
def test_ping_and_tcp_pass_whoever_begins(start: Start, initiator: str, with_psk: bool) -> None:
    begin = REACH if initiator == "theirs" else ":"
    tunnel = start(initiator, f"{begin}\nnext_step; {PING}\nnext_step", generate_psk() if with_psk else None)
    if initiator == "theirs":
        tunnel.guest.wait_for("reached")
    tunnel.assert_pings()
    tunnel.guest.step()
    tunnel.guest.wait_for("pinged")
    assert tunnel.guest.losses() == [0]
    assert [session["initiator"] for session in tunnel.peer()["sessions"]] == [initiator == "ours"]
    for port, direction in zip(IPERF_PORTS, ([], ["-R"]), strict=True):
        command = ("iperf3", "-c", THEIRS, "-p", str(port), "-t", "3", "-J", *direction)
        done = tunnel.a.run(*command, check=False, seconds=60)
        rate = parse_iperf3(done.stdout).bits_per_second
        print(f"TCP {'from' if direction else 'to'} the guest: {rate / 1e6:.1f} Mbit/s")
        assert rate > 0
    seen = wait_for("what the guest sees", tunnel.guest.sightings)[-1]
    assert seen.endpoint == f"{tunnel.host.address}:{PORT}"
    assert len(tunnel.guest.handshakes()) == 1 and seen.received > 0 and seen.sent > 0
    tunnel.guest.step()
    tunnel.guest.finish()


def test_another_psk_is_another_network(start: Start) -> None:
    tunnel = start("ours", "next_step", generate_psk(), our_psk=generate_psk())
    wait_for("the first sighting", tunnel.guest.sightings)
    done = tunnel.a.run("ping", "-c", "6", "-W", "1", THEIRS, check=False)
    assert parse_ping(done.stdout).received == 0
    assert tunnel.guest.handshakes() == [] and tunnel.peer()["state"] != "up"
    tunnel.guest.step()
    tunnel.guest.finish()


def test_either_side_is_followed_to_another_address(start: Start) -> None:
    """What crosses the news of a move on its way may be lost, hence the pings before those that count."""
    moves = (
        "ip address add 10.77.0.99/24 dev eth0; ip address del 10.77.0.2/24 dev eth0\n"
        "ip address replace 10.77.0.99/24 dev eth0; wg set wg0 listen-port 51827"
    )
    tunnel = start("ours", f"next_step; {moves}; {REACH}; {PING}; sleep 3")
    tunnel.assert_pings()
    before = tunnel.session_ids()
    tunnel.a.ip_batch("address add 10.77.0.88/24 dev eth0", "address del 10.77.0.1/24 dev eth0")
    tunnel.a.ip("address", "replace", "10.77.0.88/24", "dev", "eth0")
    tunnel.assert_pings()
    wait_for("we are seen elsewhere", lambda: tunnel.guest.sightings()[-1].endpoint == f"10.77.0.88:{PORT}")
    tunnel.guest.step()
    tunnel.guest.wait_for("pinged", 40.0)
    assert tunnel.guest.losses() == [0]
    assert tunnel.peer()["endpoint"] == "10.77.0.99:51827"
    assert tunnel.session_ids() == before, "the session moved, no new one was needed"
    tunnel.guest.finish()


@pytest.mark.parametrize("initiator", ["ours", "theirs"])
def test_a_session_is_renewed_after_two_minutes_and_no_ping_is_lost(start: Start, initiator: str) -> None:
    count = REKEY_SECONDS + 20
    steps = f"{REACH}\nnext_step; ping -c {count} {OURS} | tail -n 2; echo pinged" if initiator == "theirs" else ":"
    tunnel = start(initiator, f"{steps}\nnext_step")
    if initiator == "theirs":
        tunnel.guest.wait_for("reached")
        before, begun = tunnel.session_ids(), time.monotonic()
        tunnel.guest.step()
        tunnel.guest.wait_for("pinged", count + 60)
        assert tunnel.guest.losses() == [0]
    else:
        tunnel.assert_pings(1)
        before, begun = tunnel.session_ids(), time.monotonic()
        tunnel.assert_pings(5 * count, 0.2)
    assert time.monotonic() - begun > REKEY_SECONDS
    first, *later = tunnel.guest.handshakes()
    assert [REKEY_SECONDS <= each - first <= REKEY_SECONDS + 10 for each in later] == [True]
    newest = tunnel.peer()["sessions"][0]
    assert newest["id"] not in before and newest["current"] and newest["initiator"] is (initiator == "ours")
    tunnel.guest.step()
    tunnel.guest.finish()
