"""The kernel's lane on Debian's kernels: carried where it can be, a clear sentence and the userspace lane where not."""

from __future__ import annotations

from pathlib import Path

import pytest

from omninervous.lab.daemons import PAIR_VIPS, Daemon
from omninervous.lab.namespaces import Lab
from tests.netns.edges import ping, wait_for
from tests.soak.edge_guest import EdgeGuest, machine_beside_edge

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1500)]

REFLEX = 8
PATIENCE = 120.0
"""The guest's processor is an emulated one."""


@pytest.mark.parametrize(("version", "carries"), [("5.10", False), ("6.1", False), ("6.12", True)])
def test_the_lane_on_a_debian_kernel(lab: Lab, guest_kernels: Path, version: str, carries: bool) -> None:
    beside = machine_beside_edge(lab)
    guest = EdgeGuest(lab, guest_kernels / version)
    ours = Daemon(lab, beside.namespace, "ours")
    key = ours.init()
    ours.launch("--peer", guest.key, "--vip", str(PAIR_VIPS[0])).wait_ready()
    guest.boot(beside, key)
    ours.wait_for_peer(PATIENCE)
    reflex = wait_for("a status", lambda: guest.said("status").get("reflex"), PATIENCE)
    if carries:
        assert reflex["mechanism"] == "tc", reflex
        wait_for("the lane", lambda: REFLEX in ours.peers()[0]["lanes"], PATIENCE)
        before = ours.status()["reflex"]["counters"].get("rx_packets", 0)
        assert ping(beside.namespace, str(PAIR_VIPS[1]), 20).loss == 0
        assert ours.status()["reflex"]["counters"]["rx_packets"] >= before + 20
        wait_for(
            "the guest's count", lambda: guest.said("status")["reflex"]["counters"].get("rx_packets", 0) >= 20, PATIENCE
        )
    else:
        assert reflex["mechanism"] == "off" and "6.6" in reflex["because"], reflex
        assert ping(beside.namespace, str(PAIR_VIPS[1]), 20).loss == 0
