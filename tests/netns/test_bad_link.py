"""Two edges on a wire that loses, delays, reorders, duplicates and damages what passes."""

from __future__ import annotations

import hashlib
import random

from omninervous.lab.daemons import PAIR_VIPS, start_pair
from omninervous.lab.link import Blackout, LinkSpec, start_link
from omninervous.lab.namespaces import Lab
from omninervous.lab.process import poll_until
from omninervous.lab.topology import Host, address_pair
from tests.netns.edges import transfer

SIZE = 400_000


def joined(lab: Lab, spec: LinkSpec, seed: int) -> tuple[Host, Host]:
    a, b = lab.namespace("a"), lab.namespace("b")
    start_link(lab, (a, "eth0"), (b, "eth0"), spec, seed)
    return address_pair(a, b)


def test_a_transfer_over_a_bad_link_arrives_bit_for_bit(lab: Lab, seed: int) -> None:
    spec = LinkSpec(loss=0.02, delay=0.002, jitter=0.001, reorder=0.02, duplicate=0.05, corrupt=0.05)
    hosts = joined(lab, spec, seed)
    edges = start_pair(lab, hosts)
    for edge in edges:
        edge.wait_for_peer(30)
    data = random.Random(seed).randbytes(SIZE)
    source, sink = (each.namespace for each in hosts)
    received = transfer(source, sink, str(PAIR_VIPS[1]), data)
    assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
    drops = [edge.status()["drops"] for edge in edges]
    # Damage and duplicates did come through to us, and went no further.
    assert sum(each.get("bad_tag", 0) for each in drops) > 0
    assert sum(each.get("replay", 0) for each in drops) > 0


def test_a_session_survives_a_blackout(lab: Lab, seed: int) -> None:
    hosts = joined(lab, LinkSpec(blackouts=(Blackout(start=6.0, seconds=3.0, every=9.0),)), seed)
    for edge in start_pair(lab, hosts):
        edge.wait_for_peer()
    source, target = hosts[0].namespace, str(PAIR_VIPS[1])

    def pings() -> bool:
        return source.run("ping", "-c", "1", "-W", "0.5", target, check=False).returncode == 0

    assert poll_until(pings, 5.0)
    assert poll_until(lambda: not pings(), 15.0), "the blackout never came"
    assert poll_until(pings, 10.0), "nothing passes after the blackout"
