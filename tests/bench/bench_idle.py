"""What an edge with many idle peers costs (root).

    python -m tests.bench.bench_idle [--peers 100] [--seconds 240]

An edge and its peers, each a daemon on a machine of its own; they know the edge only, so that their own business does
not take the processor's caches from it. Each calls it once; from then on nobody sends anything. Processor time of the
edge's daemon, and what passes its underlay, both directions, IP headers included. A session is renewed every two
minutes, so measure for a multiple of that.
"""

from __future__ import annotations

import argparse
import sys
import time

from omninervous.lab.daemons import Daemon
from omninervous.lab.evidence import parse_link_counters
from omninervous.lab.namespaces import Lab, Namespace, require_privileges
from omninervous.lab.process import cpu_seconds, ended_in_order
from omninervous.lab.topology import Internet

SETTLE = 60.0
"""Seconds in which paths have been compared and keepalives have found their interval's first step."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=240.0)
    options = parser.parse_args()
    require_privileges()
    with ended_in_order(), Lab() as lab:
        internet = Internet(lab)
        near = internet.public_host("hub")
        hub = Daemon(lab, near.namespace, "hub")
        calling = ("--peer", hub.init(), "--endpoint", f"{near.address}:51820", "--ebpf", "off")
        peers = [Daemon(lab, internet.public_host(f"peer-{n}").namespace, f"peer-{n}") for n in range(options.peers)]
        hub.launch(*(word for peer in peers for word in ("--peer", peer.init()))).wait_ready()
        for peer in peers:
            peer.launch(*calling).wait_ready(120.0)
        hub.wait_for_peer(60.0, options.peers)
        time.sleep(SETTLE)
        spent, moved, began = cpu_seconds(hub.process.pid), passed_bytes(near.namespace), time.monotonic()
        time.sleep(options.seconds)
        seconds = time.monotonic() - began
        spent, moved = cpu_seconds(hub.process.pid) - spent, passed_bytes(near.namespace) - moved
        up = sum(peer["state"] == "up" for peer in hub.peers())
    bits = moved * 8 / seconds / options.peers
    print(f"{up} of {options.peers} peers up after {seconds:.0f} s idle")
    print(f"{100 * spent / seconds:.2f} % of a core, {bits:.0f} bit/s per peer")
    return 0


def passed_bytes(where: Namespace) -> int:
    """Of `eth0`, both directions, without Ethernet headers."""
    count = parse_link_counters(where.ip("-j", "-s", "link", "show", "dev", "eth0"))
    return count.bytes - 14 * count.packets


if __name__ == "__main__":
    sys.exit(main())
