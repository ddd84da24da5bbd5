"""The lab itself: what it makes is where it says, and all of it goes away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from omninervous.errors import SystemFailure
from omninervous.lab.capture import Capture, examine, frames_of, udp_datagram
from omninervous.lab.evidence import parse_ping
from omninervous.lab.names import NAMESPACE_DIRECTORY, RunId, find_leftovers
from omninervous.lab.namespaces import Lab, clean_leftovers
from omninervous.lab.process import poll_until
from omninervous.lab.scene import machine_state
from omninervous.lab.topology import Host, TwoNats, join, two_nats


def test_a_closed_lab_leaves_nothing(lab: Lab) -> None:
    inner = Lab()
    machine = inner.namespace("machine")
    sleeper = inner.start(machine, "sleeper", ["sleep", "60"])
    untracked = subprocess.Popen(machine.command("sleep", "60"))
    poll_until(lambda: len(machine.pids()) == 2, 5.0)
    assert any(f"namespace {inner.run}-machine" in each for each in inner.remains())
    inner.close()
    assert inner.remains() == []
    assert sleeper.status == -signal.SIGTERM
    assert untracked.wait(5) == -signal.SIGKILL
    assert lab.directory.exists()


def test_leftovers_of_a_killed_run_are_found_and_removed_and_live_runs_are_not(lab: Lab) -> None:
    lab.namespace("live")
    script = """
import os, time
from omninervous.lab.namespaces import Lab
lab = Lab()
lab.start(lab.namespace("victim"), "sleeper", ["sleep", "600"])
print(lab.run, flush=True)
time.sleep(600)
"""
    victim = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    with victim:
        assert victim.stdout is not None
        name = victim.stdout.readline().strip()
        victim.kill()
    run = RunId.parse(name)
    assert run is not None and run.pid == victim.pid and not run.alive
    assert f"{name}-victim" in find_leftovers().namespaces
    clean_leftovers()
    assert not list(NAMESPACE_DIRECTORY.glob(f"{name}-*"))
    assert not (lab.directory.parent / name).exists()
    assert lab.namespaces[0].path.exists() and lab.directory.exists()


def test_a_machines_state_has_the_routes_of_its_link_local_addresses(lab: Lab) -> None:
    """The kernel lists such an address first; with duplicate address detection, for a second or two without a route."""
    machine, other = lab.namespace("machine"), lab.namespace("other")
    machine.sysctl({"net.ipv6.conf.default.accept_dad": 1})
    join(machine, "eth0", other, "eth0")
    for each in (other, machine):
        each.ip("link", "set", "eth0", "up")
    assert "tentative" in machine.ip("address", "show", "dev", "eth0", "scope", "link")
    assert any(line.startswith("route local fe80::") for line in machine_state(machine))


def test_a_missing_command_is_named_with_its_remedy(lab: Lab) -> None:
    machine = lab.namespace("machine")
    with pytest.raises(SystemFailure, match="machine: `false` failed with status 1"):
        machine.run("false")
    with pytest.raises(SystemFailure, match=r"`omni-no-such-command` was not found"):
        lab.start(None, "nothing", ["omni-no-such-command"])


def test_a_socket_made_in_a_machine_stays_there(pair_lan: tuple[Host, Host]) -> None:
    a, b = pair_lan
    with a.namespace.udp_socket(str(a.address), 7000) as left, b.namespace.udp_socket(str(b.address), 7000) as right:
        left.sendto(b"over the wire", (str(b.address), 7000))
        right.settimeout(2)
        assert right.recvfrom(100) == (b"over the wire", (str(a.address), 7000))
    assert Path("/proc/self/ns/net").stat().st_ino == Path(f"/proc/{os.getppid()}/ns/net").stat().st_ino


def test_edges_reach_public_hosts_but_not_each_other(two_nats: TwoNats) -> None:
    a, b, nucleus = two_nats.edge_a, two_nats.edge_b, two_nats.nucleus
    for edge in (a, b):
        reached = edge.namespace.run("ping", "-c", "2", "-i", "0.05", "-W", "1", str(nucleus.address))
        assert parse_ping(reached.stdout).loss == 0
    lost = a.namespace.run("ping", "-c", "1", "-W", "0.3", str(b.address), check=False)
    assert parse_ping(lost.stdout).loss == 1


def test_ipv6_is_routed_through_the_nat_boxes_and_answers_only(lab: Lab) -> None:
    net = two_nats(lab, ipv6=True)
    out = net.edge_a.namespace.run("ping", "-c", "2", "-i", "0.05", "-W", "1", str(net.nucleus.address6))
    assert parse_ping(out.stdout).loss == 0
    inward = net.nucleus.namespace.run("ping", "-c", "1", "-W", "0.3", str(net.edge_a.address6), check=False)
    assert parse_ping(inward.stdout).loss == 1


def test_a_capture_holds_the_datagrams_that_passed(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    a, b = pair_lan
    capture = Capture(lab, a.namespace, "eth0", "wire")
    pairs = ((a.address, b.address), (a.address6, b.address6))
    for source, destination in pairs:
        with (
            a.namespace.udp_socket(str(source), 7000) as left,
            b.namespace.udp_socket(str(destination), 7001) as right,
        ):
            left.sendto(b"\x04 marker", (str(destination), 7001))
            right.settimeout(2)
            right.recv(100)
    poll_until(lambda: len(list(frames_of(capture.path))) >= len(pairs), 2.0)
    frames = list(frames_of(capture.stop()))
    datagrams = [datagram for frame in frames if (datagram := udp_datagram(frame))]
    assert [(each.source, each.destination, each.destination_port) for each in datagrams] == [
        (source, destination, 7001) for source, destination in pairs
    ]
    verdict = examine(frames, [("marker", b"marker"), ("absent", b"absent")])
    assert verdict.first_bytes == {4: 2}
    assert verdict.found == {"marker": 2}
