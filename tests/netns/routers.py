"""A router that opens ports for its clients: Debian's miniupnpd on a NAT box of the lab."""

from __future__ import annotations

from ipaddress import IPv4Address

from omninervous.lab.namespaces import Lab
from omninervous.lab.process import Process
from omninervous.lab.topology import Internet, NatBox

__all__ = ["OUTSIDE", "forget_all", "mappings", "run_miniupnpd", "start_miniupnpd"]

OUTSIDE = IPv4Address("198.20.0.1")
"""One more address of the box: miniupnpd serves nobody behind an address that is reserved, as the lab's others are."""
_TABLES = """
table inet miniupnpd {
    chain forward { type filter hook forward priority 0; policy accept; jump miniupnpd; }
    chain miniupnpd { }
    chain prerouting { type nat hook prerouting priority -110; policy accept; jump prerouting_miniupnpd; }
    chain postrouting { type nat hook postrouting priority 90; policy accept; jump postrouting_miniupnpd; }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
}
"""


def start_miniupnpd(
    lab: Lab, internet: Internet, box: NatBox, *, pcp: bool, upnp: bool, longest: int = 86400
) -> Process:
    """Give the box its address, open it towards its LAN, and start the router. `pcp` is PCP and NAT-PMP; `longest`: its
    leases, in seconds, at most."""
    box.namespace.ip("address", "add", f"{OUTSIDE}/32", "dev", "wan0")
    internet.gateway.ip("route", "add", f"{OUTSIDE}/32", "via", str(box.wan))
    box.namespace.nft(_TABLES)
    box.namespace.nft('add rule ip omni_nat input iifname "lan0" accept\n')
    settings = {
        "ext_ifname": "wan0",
        "ext_ip": OUTSIDE,
        "listening_ip": "lan0",
        "enable_natpmp": "yes" if pcp else "no",
        "enable_upnp": "yes" if upnp else "no",
        "http_port": 5000,
        "secure_mode": "yes",
        "min_lifetime": min(120, longest - 1),
        "max_lifetime": longest,
        "upnp_table_name": "miniupnpd",
        "upnp_nat_table_name": "miniupnpd",
        "upnp_forward_chain": "miniupnpd",
        "upnp_nat_chain": "prerouting_miniupnpd",
        "upnp_nat_postrouting_chain": "postrouting_miniupnpd",
        "uuid": "00000000-0000-4000-8000-000000000001",
    }
    file = lab.directory / "miniupnpd.conf"
    lines = [f"{name}={value}\n" for name, value in settings.items()]
    file.write_text("".join(lines) + "allow 1024-65535 0.0.0.0/0 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n")
    return run_miniupnpd(lab, box)


def run_miniupnpd(lab: Lab, box: NatBox) -> Process:
    """Start the router (again), as it was configured."""
    argv = ["miniupnpd", "-d", "-f", str(lab.directory / "miniupnpd.conf"), "-P", str(lab.directory / "miniupnpd.pid")]
    return lab.start(box.namespace, "miniupnpd", argv)


def forget_all(box: NatBox) -> None:
    """What a router that was switched off has forgotten."""
    for chain in ("miniupnpd", "prerouting_miniupnpd", "postrouting_miniupnpd"):
        box.namespace.run("nft", "flush", "chain", "inet", "miniupnpd", chain)
    box.namespace.run("conntrack", "-F")


def mappings(box: NatBox) -> str:
    """The rules that the router made for its clients; empty if there are none."""
    listed = box.namespace.run("nft", "list", "chain", "inet", "miniupnpd", "prerouting_miniupnpd").stdout
    return "\n".join(line.strip() for line in listed.splitlines() if "dnat" in line)
