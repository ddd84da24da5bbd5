"""DDS, the middleware of ROS 2, over omni0: multicast discovery, samples that take a thousand frames each, and a robot
that moves to another network meanwhile."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from omninervous.lab.daemons import start_cluster, start_pair
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.process import Process
from omninervous.lab.roaming import Roaming
from omninervous.lab.topology import Host, TwoNats

PARTICIPANT = Path(__file__).with_name("dds_participant.py")
CONFIGURATION = """<CycloneDDS><Domain><General>
<Interfaces><NetworkInterface name="{interface}" multicast="true"/></Interfaces>
<AllowMulticast>true</AllowMulticast>
</General></Domain></CycloneDDS>"""


@dataclass(frozen=True)
class Talk:
    samples: int
    size: int
    """Bytes of each."""
    pause: float
    """Seconds between two."""


TALK = Talk(samples=3, size=1 << 20, pause=0.0)


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


def test_two_dds_processes_go_on_while_one_machine_moves(lab: Lab) -> None:
    """From one NAT to another and back, with half a second without any network each time; nobody is told."""
    scene = Roaming(lab)
    talk = Talk(samples=150, size=50_000, pause=0.1)
    echo = participant(lab, scene.still, "omni0", "echo", talk)
    ask = participant(lab, scene.roamer, "omni0", "ask", talk)
    for number in (5, 10):
        ask.wait_for_output(f"sample {number}:", 60.0)
        scene.move()
    assert ask.status is None, "it moved while they talked"
    assert ask.wait(120) == 0, ask.tail()
    assert echo.wait(60) == 0, echo.tail()
    assert ask.output().count("there and back") == talk.samples


def assert_talk(lab: Lab, hosts: tuple[Host, Host], interface: str) -> None:
    ask, echo = (
        participant(lab, host.namespace, interface, role, TALK)
        for host, role in zip(hosts, ("ask", "echo"), strict=True)
    )
    assert ask.wait(60) == 0, ask.tail()
    assert echo.wait(10) == 0, echo.tail()
    assert ask.output().count("there and back") == TALK.samples


def participant(lab: Lab, machine: Namespace, interface: str, role: str, talk: Talk) -> Process:
    return lab.start(
        machine,
        f"dds-{role}",
        [sys.executable, str(PARTICIPANT), role, str(talk.samples), str(talk.size), str(talk.pause)],
        {"CYCLONEDDS_URI": CONFIGURATION.format(interface=interface)},
    )
