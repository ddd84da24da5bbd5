"""How long a machine that moves is out of reach, and one whose way dies without a word (root).

    python -m tests.bench.bench_roaming [--moves 20] [--cuts 10]

A machine goes back and forth between two NATs; the other side stays behind a port-restricted NAT of its own. 5 ms UDP
streams run both ways. The clock starts just before `ip address add`, and the outage ends with the first datagram after.

Two machines have two ways, IPv6 and IPv4 through NATs (`lab/twoways.py`). The one in use is cut in a router, while an
iperf3 runs as well. The outage is the longest gap while it is cut.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from omninervous.lab.daemons import PAIR_VIPS
from omninervous.lab.namespaces import Lab, require_privileges
from omninervous.lab.outage import TcpStream
from omninervous.lab.roaming import Roaming
from omninervous.lab.twoways import TwoWays

PATIENCE = 20.0
SETTLE = 2.0
DEAD = 10.0
"""Seconds for which a way is cut: it must not be taken again meanwhile."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--cuts", type=int, default=10)
    options = parser.parse_args()
    require_privileges()
    for name, seconds in (("moves", move(options.moves)), ("cuts", lose(options.cuts))):
        if seconds:
            figures = f"median {statistics.median(seconds) * 1000:.0f} ms, longest {max(seconds) * 1000:.0f} ms"
            print(f"{name}: {figures} ({len(seconds)} outages, both directions)")
    return 0


def move(times: int) -> list[float]:
    """Seconds of every outage, of each direction."""
    outages: list[float] = []
    with Lab() as lab:
        scene = Roaming(lab)
        there, back = scene.streams()
        with there, back:
            time.sleep(SETTLE)
            for _ in range(times):
                moved_at = scene.move()
                outages += [stream.outage(moved_at, PATIENCE) for stream in (there, back)]
                time.sleep(SETTLE)
    return outages


def lose(times: int) -> list[float]:
    """Seconds of every outage, of each direction."""
    outages: list[float] = []
    with Lab() as lab:
        scene = TwoWays(lab)
        there, back = scene.streams()
        with there, back:
            TcpStream(lab, (scene.a, str(PAIR_VIPS[0])), (scene.b, str(PAIR_VIPS[1])))
            for _ in range(times):
                time.sleep(SETTLE)
                cut_at = scene.cut(scene.kinds[0])
                time.sleep(DEAD)
                outages += [stream.longest_gap(cut_at, cut_at + DEAD) for stream in (there, back)]
                scene.mend()
    return outages


if __name__ == "__main__":
    sys.exit(main())
