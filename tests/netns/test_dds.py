"""DDS, the middleware of ROS 2, over omni0: multicast discovery, and samples that take a thousand frames each."""

from __future__ import annotations

import sys
from pathlib import Path

from omninervous.lab.daemons import start_cluster, start_pair
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.process import Process
from omninervous.lab.topology import Host, TwoNats

PARTICIPANT = Path(__file__).with_name("dds_participant.py")
SAMPLES = 3
SAMPLE_SIZE = 1 << 20
CONFIGURATION = """<CycloneDDS><Domain><General>
<Interfaces><NetworkInterface name="{interface}" multicast="true"/></Interfaces>
<AllowMulticast>true</AllowMulticast>
</General></Domain></CycloneDDS>"""


def test_two_dds_processes_talk_over_a_plain_wire(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    """The control: what fails here fails without us."""
    assert_talk(lab, pair_lan, "eth0")


def test_two_dds_processes_discover_each_other_and_exchange_large_samples(
    lab: Lab, pair_lan: tuple[Host, Host]
) -> None:
    for edge in start_pair(lab, pair_lan):
        edge.wait_for_peer()
    assert_talk(lab, pair_lan, "omni0")


def test_two_dds_processes_of_a_cluster_discover_each_other_behind_nats(lab: Lab, two_nats: TwoNats) -> None:
    _, *edges = start_cluster(lab, two_nats)
    for edge in edges:
        edge.wait_for_peer()
    assert_talk(lab, (two_nats.edge_a, two_nats.edge_b), "omni0")


def assert_talk(lab: Lab, hosts: tuple[Host, Host], interface: str) -> None:
    ask, echo = (
        participant(lab, host.namespace, interface, role) for host, role in zip(hosts, ("ask", "echo"), strict=True)
    )
    assert ask.wait(60) == 0, ask.tail()
    assert echo.wait(10) == 0, echo.tail()
    assert ask.output().count("there and back") == SAMPLES


def participant(lab: Lab, machine: Namespace, interface: str, role: str) -> Process:
    return lab.start(
        machine,
        f"dds-{role}",
        [sys.executable, str(PARTICIPANT), role, str(SAMPLES), str(SAMPLE_SIZE)],
        {"CYCLONEDDS_URI": CONFIGURATION.format(interface=interface)},
    )
