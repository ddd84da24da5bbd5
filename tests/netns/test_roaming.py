"""A machine that moves keeps its TCP stream; paths that die without a word are replaced. Figures are printed (-s)."""

from __future__ import annotations

import statistics
import time

from omninervous.lab.cut import cut, mend
from omninervous.lab.daemons import PAIR_VIPS
from omninervous.lab.namespaces import Lab
from omninervous.lab.outage import TcpStream
from omninervous.lab.process import poll_until
from omninervous.lab.roaming import ROAMER_VIP, STILL_VIP, Roaming
from omninervous.lab.twoways import TwoWays
from tests.netns.edges import ping

MOVES = 4
SETTLE = 2.0
STAYS_DEAD = 8.0
"""Seconds: longer than a way that was chosen is kept."""
FOUND_WITHIN = 20.0
"""Seconds, on a machine that may be busy; `tests/bench/bench_roaming.py` measures."""


def moves_on(tcp: TcpStream) -> bool:
    """Whether it sends in two more seconds, in time."""
    enough = tcp.good_seconds + 2
    return poll_until(lambda: tcp.good_seconds >= enough, FOUND_WITHIN)


def test_tcp_and_udp_survive_a_machine_that_moves(lab: Lab) -> None:
    scene = Roaming(lab)
    tcp = TcpStream(lab, (scene.roamer, ROAMER_VIP), (scene.still, STILL_VIP))
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
    assert tcp.client.status is None, tcp.client.tail()
    assert tcp.good_seconds > 0
    assert scene.daemons[0].status()["handshakes_completed"] <= 2 + 2 * MOVES


def test_the_other_way_is_taken_when_one_dies_without_a_word(lab: Lab) -> None:
    scene = TwoWays(lab)
    there, back = scene.streams()
    with there, back:
        assert scene.wait_for("ipv6", 60.0), scene.kinds
        tcp = TcpStream(lab, (scene.a, str(PAIR_VIPS[0])), (scene.b, str(PAIR_VIPS[1])))
        outages: list[float] = []
        for dead, alive in (("ipv6", "nat"), ("nat", "ipv6")):
            cut_at = scene.cut(dead)
            outages += [each.outage(cut_at + 0.05, FOUND_WITHIN) for each in (there, back)]
            assert max(outages) < FOUND_WITHIN, outages
            assert scene.wait_for(alive, FOUND_WITHIN), scene.kinds
            assert moves_on(tcp), tcp.client.tail()
            time.sleep(max(0.0, cut_at + STAYS_DEAD - time.monotonic()))
            outages += [each.longest_gap(cut_at, time.monotonic()) for each in (there, back)]
            assert set(scene.kinds) == {alive}, "the dead way was the faster one, and stays dead"
            scene.mend()
    print(f"\ndead ways: median outage {statistics.median(outages):.2f} s, longest {max(outages):.2f} s")
    assert tcp.client.status is None, tcp.client.tail()


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
    cut(scene.home.namespace, "wan0")
    time.sleep(SETTLE)
    mend(scene.home.namespace)
    assert ping(scene.roamer, STILL_VIP, 20).received > 0
    assert all(each["path"]["kind"] == "nat" for daemon in scene.daemons for each in daemon.peers())
