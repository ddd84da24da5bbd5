"""Behind a NAT that gives each new destination the next port: real daemons guess it, and meet."""

from __future__ import annotations

import pytest

from omninervous.hostos.control import request
from omninervous.lab.daemons import Daemon
from omninervous.lab.namespaces import Lab
from omninervous.lab.nat import NatKind
from omninervous.lab.topology import Host, Internet
from tests.netns.edges import SECRET, behind, wait_for


def names(edge: Daemon) -> list[str]:
    """Of those that it knows."""
    return [each["name"] for each in edge.ask("peers")["peers"]]


@pytest.mark.parametrize("nuclei", [1, 2])
def test_the_next_port_is_guessed(lab: Lab, nuclei: int) -> None:
    """With one Nucleus it takes a public member to see that the ports count; two Nuclei see it themselves."""
    internet = Internet(lab)
    named: list[str] = []
    for number in range(nuclei):
        host = internet.public_host(f"nucleus-{number}")
        Daemon(lab, host.namespace, f"nucleus-{number}").launch("--mode", "nucleus", "--port", "51820").wait_ready()
        named += ("--nucleus", f"{host.address}:51820")

    def member(host: Host, name: str) -> Daemon:
        edge = Daemon(lab, host.namespace, name)
        return edge.launch(*named, "--cluster", "fleet", "--name", name, environment={"OMNI_SECRET": SECRET})

    if nuclei == 1:
        member(internet.public_host("public"), "public").wait_ready()
    edges = []
    for name, kind in (("counted", NatKind.SEQUENTIAL), ("guesser", NatKind.PORT_RESTRICTED)):
        _, host = behind(internet, name, kind)
        edges.append(member(host, name).wait_ready())
    counted, guesser = edges
    wait_for("their names", lambda: "guesser" in names(counted) and "counted" in names(guesser))
    wait_for("a direct path", lambda: request(counted.state_dir, "ping", peer="guesser")["ok"], 60.0)
    assert request(guesser.state_dir, "ping", peer="counted")["path"]["kind"] == "nat"
    seen = counted.ask("netcheck")["ipv4"]
    assert seen["mapping"] == "address-dependent" and seen["counting"]
    assert any("it counts" in hint for hint in seen["hints"])
    assert not guesser.ask("netcheck")["ipv4"]["counting"]
