"""`omni netcheck` by RFC 4787's terms, against NATs that are what their definitions say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omninervous.lab.daemons import Daemon
from omninervous.lab.namespaces import Lab
from omninervous.lab.nat import NatKind
from omninervous.lab.topology import Host, Internet
from tests.netns.edges import SECRET, behind, wait_for


def netcheck(lab: Lab, host: Host, nuclei: Sequence[str]) -> dict[str, Any]:
    """What an edge says that has registered at all of these Nuclei, alone in a cluster of its own."""
    edge = Daemon(lab, host.namespace, host.namespace.role)
    named = [word for each in nuclei for word in ("--nucleus", each)]
    edge.launch(*named, "--cluster", host.namespace.role, environment={"OMNI_SECRET": SECRET}).wait_ready()

    def registered() -> bool:
        return all(each["registered"] for each in edge.peek("status")["nuclei"])

    wait_for("a registration everywhere", registered)
    return edge.ask("netcheck")


def test_mapping_filtering_and_hairpin(lab: Lab) -> None:
    internet = Internet(lab, ipv6=True)
    hosts = [internet.public_host(role) for role in ("nucleus-1", "nucleus-2")]
    for host in hosts:
        Daemon(lab, host.namespace, host.namespace.role).launch("--mode", "nucleus", "--port", "51820").wait_ready()
    two, two6 = ([f"{each.address}:51820" for each in hosts], [f"[{each.address6}]:51820" for each in hosts])

    box, open_host = behind(internet, "open", NatKind.FULL_CONE)
    inward = f'prerouting iifname "lan0" ip daddr {box.wan} meta l4proto udp dnat to {open_host.address}'
    outward = f'postrouting oifname "lan0" ip saddr {open_host.address} meta l4proto udp snat to {box.wan}'
    box.namespace.nft(f"add rule ip omni_nat {inward}\nadd rule ip omni_nat {outward}\n")
    found = netcheck(lab, open_host, two)["ipv4"]
    assert (found["mapping"], found["filtering"], found["hairpin"]) == ("endpoint-independent",) * 2 + (True,)
    assert found["hints"] == []

    _, shut_host = behind(internet, "shut", NatKind.PORT_RESTRICTED)
    found = netcheck(lab, shut_host, two)["ipv4"]
    assert (found["mapping"], found["filtering"], found["hairpin"]) == (
        "endpoint-independent",
        "address-and-port-dependent",
        False,
    )

    _, choosy_host = behind(internet, "choosy", NatKind.ADDRESS_RESTRICTED)
    found = netcheck(lab, choosy_host, two)["ipv4"]
    assert (found["mapping"], found["filtering"]) == ("endpoint-independent", "address-dependent")

    _, lone_host = behind(internet, "lone", NatKind.SYMMETRIC)
    found = netcheck(lab, lone_host, two[:1])["ipv4"]
    assert (found["mapping"], found["filtering"]) == ("unknown", "unknown"), "one address alone cannot tell"

    _, host6 = behind(internet, "six", NatKind.PORT_RESTRICTED)
    found = netcheck(lab, host6, two6)["ipv6"]
    assert (found["mapping"], found["filtering"], found["hairpin"]) == ("none", "address-and-port-dependent", None)
    assert "firewall lets in answers only" in found["hints"][0]
