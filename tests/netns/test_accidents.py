"""What may happen to a running edge with the native engine: each accident has its counter, and afterwards all is well.
The kernel's lane, which would take the single frames, is off, but for one test.

The interface that is deleted, after which an edge cannot go on, is in `test_daemon.py`; accidents in any order are in
`tests/soak/test_chaos.py`.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import resource
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from omninervous.errors import SystemFailure
from omninervous.hostos.control import request
from omninervous.lab.daemons import PAIR_VIPS, Daemon, start_pair
from omninervous.lab.namespaces import Lab
from omninervous.lab.topology import Host
from tests.netns.edges import ping, wait_for
from tests.netns.test_queues import stream

Edges = tuple[Daemon, Daemon]
A, B = (str(each) for each in PAIR_VIPS)


@pytest.fixture
def edges(lab: Lab, pair_lan: tuple[Host, Host]) -> Edges:
    return started(lab, pair_lan, "--ebpf", "off")


def started(lab: Lab, pair_lan: tuple[Host, Host], *more: str) -> Edges:
    edges = start_pair(lab, pair_lan, *more)
    for edge in edges:
        edge.wait_for_peer()
    assert ping(edges[0].where, B).loss == 0
    return edges


def answers(source: Daemon, target: str, size: int = 56) -> bool:
    done = source.where.run("ping", "-n", "-c", "1", "-W", "1", "-s", str(size), target, check=False)
    return done.returncode == 0


def stopped(pid: int) -> bool:
    """A stop begins with the thread that takes the signal, and that one may wait for a processor."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def recovers(edges: Edges, seconds: float = 30.0) -> None:
    """Both ways; neither end has ended, nor complained of a mistake of its own."""
    wait_for("an answer from B", lambda: answers(edges[0], B), seconds)
    wait_for("an answer from A", lambda: answers(edges[1], A), seconds)
    for edge in edges:
        assert edge.process.status is None
        assert "Traceback" not in edge.process.output() and "panicked" not in edge.process.output()


def drops(edge: Daemon) -> dict[str, int]:
    counted: dict[str, int] = edge.peek("status")["drops"]
    return counted


def test_an_underlay_that_narrows(edges: Edges, pair_lan: tuple[Host, Host], seed: int) -> None:
    for host in pair_lan:
        host.namespace.ip("link", "set", "eth0", "mtu", "1300")
    wait_for("a full frame in pieces", lambda: answers(edges[0], B, 1340))
    assert drops(edges[0])["too_big"] > 0
    assert stream(pair_lan, 7000, seed, 0), "super-frames too"
    recovers(edges)


def test_an_underlay_that_narrows_under_the_kernels_lane(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    """What does not fit any longer takes the engine's lane, in pieces."""
    edges = started(lab, pair_lan)
    assert answers(edges[0], B, 1340)
    for host in pair_lan:
        host.namespace.ip("link", "set", "eth0", "mtu", "1300")
    wait_for("a full frame in pieces", lambda: answers(edges[0], B, 1340))
    recovers(edges)


@pytest.mark.parametrize("how", ["link", "address"])
def test_an_underlay_that_goes_and_comes(edges: Edges, pair_lan: tuple[Host, Host], how: str) -> None:
    machine, address = pair_lan[0].namespace, f"{pair_lan[0].address}/24"
    if how == "link":
        machine.ip("link", "set", "eth0", "down")
    else:
        machine.ip("address", "del", address, "dev", "eth0")
    assert not answers(edges[0], B)
    wait_for("the counter", lambda: drops(edges[0]).get("underlay_error"))
    if how == "link":
        machine.ip("link", "set", "eth0", "up")
    else:
        machine.ip("address", "add", address, "dev", "eth0")
    recovers(edges)


def test_an_overlay_that_goes_down_and_up(edges: Edges) -> None:
    edges[0].where.ip("link", "set", "omni0", "down")
    assert not answers(edges[1], A)
    wait_for("the counter", lambda: drops(edges[0]).get("tap_write"))
    edges[0].where.ip("link", "set", "omni0", "up")
    recovers(edges)


def test_an_overlay_that_widens(edges: Edges, pair_lan: tuple[Host, Host], seed: int) -> None:
    """Frames larger than the underlay's go in pieces, those of super-frames too."""
    for edge in edges:
        edge.where.ip("link", "set", "omni0", "mtu", "4000")
    assert answers(edges[0], B, 3900)
    assert stream(pair_lan, 7000, seed, 0)
    recovers(edges)


def test_a_process_that_is_stopped_for_a_while(edges: Edges) -> None:
    os.kill(edges[0].process.pid, signal.SIGSTOP)
    wait_for("all threads to stand still", lambda: stopped(edges[0].process.pid))
    assert not answers(edges[1], A)
    time.sleep(2.0)
    os.kill(edges[0].process.pid, signal.SIGCONT)
    recovers(edges)
    assert "replay" not in drops(edges[0])


def test_a_full_send_buffer(edges: Edges, pair_lan: tuple[Host, Host]) -> None:
    """A slow wire with a queue longer than the socket's buffer: sending fails, and nothing waits for it."""
    machine = pair_lan[0].namespace
    shape = ["rate", "1mbit", "burst", "16kb", "limit", "64mb"]
    machine.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *shape)
    with machine.udp_socket() as sender:
        for _ in range(200):
            for _ in range(200):
                sender.sendto(bytes(1300), (B, 9))
            if drops(edges[0]).get("send_buffer"):
                break
    assert drops(edges[0])["send_buffer"] > 0 and "underlay_error" not in drops(edges[0])
    machine.run(*["tc", "qdisc", "del", "dev", "eth0", "root"])
    recovers(edges)


def test_a_peer_whose_port_is_closed_for_a_while(edges: Edges, pair_lan: tuple[Host, Host]) -> None:
    """ICMP says so for every datagram."""
    argv = Path(f"/proc/{edges[1].process.pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    edges[1].process.kill()
    for _ in range(3):
        assert not answers(edges[0], B)
    edges[1].launch(*argv[argv.index("--peer") :]).wait_ready()
    recovers(edges)


def test_no_descriptor_is_left(edges: Edges, pair_lan: tuple[Host, Host], seed: int) -> None:
    """What is up stays up; the control socket answers again when there are descriptors again."""
    pid = edges[0].process.pid
    former = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(each) for each in os.listdir(f"/proc/{pid}/fd")}
    lowest = next(number for number in itertools.count() if number not in used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest, former[1]))
    with pytest.raises(SystemFailure):
        request(edges[0].state_dir, "status", 1.0)
    assert stream(pair_lan, 7000, seed, 0)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, former)
    wait_for("an answer on the control socket", lambda: edges[0].peek("status"))
    recovers(edges)


@contextmanager
def stopped_thread(pid: int) -> Generator[None, None, None]:
    """The process's first thread, the control plane's, stands still; the others go on (ptrace(2))."""
    seize, interrupt, detach, wall = 0x4206, 0x4207, 17, 0x40000000
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    assert ptrace(seize, pid, None, None) == 0, os.strerror(ctypes.get_errno())
    assert ptrace(interrupt, pid, None, None) == 0
    assert os.WIFSTOPPED(os.waitpid(pid, wall)[1])
    try:
        yield
    finally:
        ptrace(detach, pid, None, None)


def test_a_control_plane_that_stands_still(edges: Edges, pair_lan: tuple[Host, Host], seed: int) -> None:
    with stopped_thread(edges[0].process.pid):
        with pytest.raises(SystemFailure, match="does not answer"):
            request(edges[0].state_dir, "status", 1.0)
        assert ping(edges[0].where, B, 10).loss == 0
        assert stream(pair_lan, 7000, seed, 0) and stream(pair_lan, 7001, seed, 1)
    recovers(edges)
