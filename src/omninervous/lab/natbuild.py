"""The network of `omni lab nat`: one internet, a Nucleus's host, and two machines for every site.

The first machine of each site stands in the near half of the internet, the second one in the far half, unless they
share a box: so the two of every pair talk across the cable between the halves.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from omninervous.errors import SystemFailure
from omninervous.lab.link import LinkSpec
from omninervous.lab.namespaces import Lab
from omninervous.lab.nat import Forward, NatKind, NatPolicy
from omninervous.lab.natprobe import observe
from omninervous.lab.natsites import Family, Site
from omninervous.lab.topology import Host, Internet, NatBox

__all__ = ["Machine", "NatNetwork"]

_PORTS = (51820, 51821)
"""Siblings behind one box need different ones: a second client on the same port is mapped per destination."""
_FIRST_VIP = IPv4Address("10.200.9.1")
_PROBES_AT_ONCE = 8
_PROBE_PORT = 3478


@dataclass(frozen=True, slots=True)
class Machine:
    """One edge of the laboratory."""

    site: Site
    instance: int
    """0 or 1: which of the site's two machines."""
    host: Host
    vip: IPv4Address
    port: int

    @property
    def name(self) -> str:
        return f"{self.site.name}-{'ab'[self.instance]}"


@dataclass(slots=True)
class _Box:
    nat: NatBox
    site: Site
    clients: list[Forward] = field(default_factory=list)
    """Who is plugged in, each with its edge's port."""

    def configure(self) -> None:
        hairpin = tuple(self.clients) if self.site.hairpin and len(self.clients) > 1 else ()
        self.nat.configure(NatPolicy(self.nat.kind, self.clients[0].client, hairpin=hairpin))
        if self.site.udp_timeout is not None:
            timeout = self.site.udp_timeout
            names = ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream")
            self.nat.namespace.sysctl({f"net.netfilter.{name}": timeout for name in names})


class NatNetwork:
    """The machines and their boxes, configured; no daemon runs yet."""

    def __init__(self, lab: Lab, sites: tuple[Site, ...]) -> None:
        self._internet = Internet(lab, ipv6=True, halves=True)
        public = self._internet.public_host
        self._servers = public("server-1"), public("server-2"), public("server-3")
        self.nucleus = self._internet.public_host("nucleus")
        self._boxes: list[_Box] = []
        self._shared: dict[str, _Box] = {}
        """The box that siblings have in common, by the siblings' name."""
        self.machines: list[Machine] = []
        for site in sites:
            for instance in range(2):
                self._internet.build_in(far=instance == 1)
                self.machines.append(self._build(site, instance))
        for box in self._boxes:
            box.configure()

    @property
    def boxes(self) -> list[NatBox]:
        """NATs and firewalls."""
        return [box.nat for box in self._boxes]

    @property
    def sites_of_boxes(self) -> list[tuple[NatBox, Site]]:
        """`boxes`, each with the site that it was made for."""
        return [(box.nat, box.site) for box in self._boxes]

    def check(self) -> None:
        """Probe every machine's way out over IPv4. SystemFailure if it is not what the site's definition says."""

        def probe(machine: Machine) -> str:
            seen = observe(machine.host, *self._servers, _PROBE_PORT + 3 * self.machines.index(machine)).behaviour
            expected = machine.site.behaviour
            return "" if seen == expected else f"{machine.name}: {seen} instead of {expected}"

        # The probe has one port, which the second sibling's box would map elsewhere.
        chosen = [m for m in self.machines if m.site.ipv4 and (m.instance == 0 or not m.site.siblings)]
        with ThreadPoolExecutor(_PROBES_AT_ONCE) as pool:
            wrong = [text for text in pool.map(probe, chosen) if text]
        if wrong:
            raise SystemFailure(f"a NAT of the laboratory is not what its definition says: {'; '.join(wrong)}")

    def impair(self, spec: LinkSpec, seed: int) -> None:
        """Let all that passes between the halves of the internet pass a bad link."""
        self._internet.impair(spec, seed)

    def _build(self, site: Site, instance: int) -> Machine:
        name, port = f"{site.name}-{'ab'[instance]}", _PORTS[instance]
        vip = _FIRST_VIP + len(self.machines)
        ipv6 = site.ipv6 is not Family.NONE
        if site.ipv4 and not site.nats:
            return Machine(site, instance, self._internet.public_host(name, ipv6=ipv6), vip, port)
        kinds = site.nats or (NatKind.ROUTER,)
        if len(kinds) == 1:
            box = self._outermost(site, name, kinds[0], ipv6)
        else:
            carrier = self._outermost(site, f"{name}-carrier", kinds[1], ipv6)
            box = self._box(site, self._internet.nat(f"{name}-nat", kinds[0], behind=carrier.nat))
            carrier.clients.append(Forward(port, box.nat.wan))
        host = self._internet.edge(name, box.nat, ipv4=site.ipv4)
        box.clients.append(Forward(port, host.address))
        return Machine(site, instance, host, vip, port)

    def _outermost(self, site: Site, name: str, kind: NatKind, ipv6: bool) -> _Box:
        """The box at the internet's end: one for all siblings."""
        if site.siblings in self._shared:
            return self._shared[site.siblings]
        box = self._box(site, self._internet.nat(f"{name}-box", kind, ipv6=ipv6))
        if site.siblings:
            self._shared[site.siblings] = box
        return box

    def _box(self, site: Site, nat: NatBox) -> _Box:
        box = _Box(nat, site)
        self._boxes.append(box)
        return box
