"""How long a machine that moves is out of reach (root).

    python -m tests.bench.bench_roaming [--moves 20]

A machine goes back and forth between two NATs; the other side stays behind a port-restricted NAT of its own. 5 ms UDP
streams run both ways. The clock starts just before `ip address add`, and the outage ends with the first datagram after.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from omninervous.lab.namespaces import Lab, require_privileges
from omninervous.lab.roaming import Roaming

PATIENCE = 20.0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--moves", type=int, default=20)
    moves = parser.parse_args().moves
    require_privileges()
    outages: dict[str, list[float]] = {"from the machine that moves": [], "to the machine that moves": []}
    with Lab() as lab:
        scene = Roaming(lab)
        there, back = scene.streams()
        with there, back:
            time.sleep(2.0)
            for _ in range(moves):
                moved_at = scene.move()
                for name, stream in zip(outages, (there, back), strict=True):
                    outages[name].append(stream.outage(moved_at, PATIENCE))
                time.sleep(2.0)
    for name, seconds in outages.items():
        figures = f"median {statistics.median(seconds) * 1000:.0f} ms, longest {max(seconds) * 1000:.0f} ms"
        print(f"{name}: {figures} ({moves} moves)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
