"""A machine that moves keeps its TCP stream; paths that die without a word are replaced. Figures are printed (-s)."""

from __future__ import annotations

import re
import statistics
import time

from omninervous.lab.namespaces import Lab
from omninervous.lab.roaming import ROAMER_VIP, STILL_VIP, Roaming
from tests.netns.edges import ping

MOVES = 4
SETTLE = 2.0
FOUND_WITHIN = 20.0
"""Seconds, on a machine that may be busy; `tests/bench/bench_roaming.py` measures."""


def test_tcp_and_udp_survive_a_machine_that_moves(lab: Lab) -> None:
    scene = Roaming(lab)
    server = lab.start(scene.still, "iperf3-server", ["iperf3", "-s", "-B", STILL_VIP, "--one-off", "--forceflush"])
    server.wait_for_output("listening", 10.0)
    argv = ["iperf3", "-c", STILL_VIP, "-B", ROAMER_VIP, "-t", "60", "-b", "2M", "--forceflush"]
    client = lab.start(scene.roamer, "iperf3-client", argv)
    there, back = scene.streams()
    with there, back:
        time.sleep(SETTLE)
        outages: list[float] = []
        for _ in range(MOVES):
            moved_at = scene.move()
            outages += [each.outage(moved_at, FOUND_WITHIN) for each in (there, back)]
            assert max(outages) < FOUND_WITHIN, outages
            time.sleep(SETTLE)
    print(f"\nmoves: median outage {statistics.median(outages):.3f} s, longest {max(outages):.3f} s")
    assert client.status is None, client.tail()
    moved = sum(float(each) for each in re.findall(r"([\d.]+) [KM]Bytes", client.output()))
    assert moved > 0
    assert scene.daemons[0].status()["handshakes_completed"] <= 2 + 2 * MOVES


def test_a_silent_loss_and_a_forgetful_nat_are_survived(lab: Lab) -> None:
    scene = Roaming(lab)
    there, back = scene.streams()
    with there, back:
        time.sleep(SETTLE)
        outages: list[float] = []
        for box in (scene.home, scene.nat_b):
            box.namespace.run("conntrack", "-F")
            forgot_at = time.monotonic()
            outages += [each.outage(forgot_at + 0.05, FOUND_WITHIN) for each in (there, back)]
            assert max(outages) < FOUND_WITHIN, outages
            time.sleep(SETTLE)
    print(f"\nforgetful NATs: median outage {statistics.median(outages):.2f} s, longest {max(outages):.2f} s")
    scene.cut(scene.home.namespace, "wan0")
    time.sleep(SETTLE)
    scene.mend(scene.home.namespace)
    assert ping(scene.roamer, STILL_VIP, 20).received > 0
    assert all(each["path"]["kind"] == "nat" for daemon in scene.daemons for each in daemon.peers())
