"""The lab's networks.

`pair_lan`: two machines on one wire, the plainest underlay there is::

    a eth0 ----------- eth0 b            10.77.0.1, 10.77.0.2; 2001:db8:77::1, ::2

`Internet`: public hosts and NAT boxes on a switch whose gateway routes between them::

                    gateway (br0: 198.51.100.1, 2001:db8::1)
                  /            |               \\
      nucleus eth0         wan0 nat-a         wan0 nat-b       198.51.100.10, .11, .12
                           lan0    |          lan0    |        192.168.1.1, 192.168.2.1
                           eth0 edge-a        eth0 edge-b      192.168.1.2, 192.168.2.2

Public IPv4 is TEST-NET-2 (RFC 5737), IPv6 the documentation prefix (RFC 3849); behind a NAT IPv6 is routed through a
stateful firewall. The gateway drops whatever has no route, private addresses above all.

An internet of two halves has a second switch. What passes between the halves passes one cable, which can be a bad one
(`Internet.impair`)::

    gateway (br0) half0 ======== half1 (br1)                     the near half; the far half
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from omninervous.lab.link import LinkSpec, start_link
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.nat import Forward, NatKind, NatPolicy, nat_ruleset

__all__ = ["Host", "Internet", "NatBox", "TwoNats", "address_pair", "join", "pair_lan", "two_nats"]

_PUBLIC = IPv4Network("198.51.100.0/24")
_PUBLIC6 = IPv6Network("2001:db8::/64")
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
_FIRST_HOST = 10
_PAIR = IPv4Network("10.77.0.0/24")
_PAIR6 = IPv6Network("2001:db8:77::/64")


@dataclass(frozen=True, slots=True)
class Host:
    """A machine with one underlay interface."""

    namespace: Namespace
    interface: str
    address: IPv4Address
    address6: IPv6Address | None = None


@dataclass(slots=True)
class NatBox:
    """A NAT box: `wan0` towards the internet (or towards another NAT), `lan0` a bridge towards its clients."""

    namespace: Namespace
    kind: NatKind
    wan: IPv4Address
    lan: IPv4Network
    lan6: IPv6Network | None
    clients: int = 0

    @property
    def gateway(self) -> IPv4Address:
        """The box's own address on its LAN."""
        return self.lan[1]

    def configure(self, policy: NatPolicy) -> None:
        """Load the rules. Once: conntrack's state would outlive a change."""
        self.namespace.nft(nat_ruleset(policy, "wan0", "lan0", self.wan))


class Internet:
    """A switch, its gateway, and whoever is plugged in."""

    def __init__(self, lab: Lab, *, ipv6: bool = False, halves: bool = False) -> None:
        self.lab = lab
        self.ipv6 = ipv6
        self.gateway = lab.namespace("internet")
        self._hosts = _FIRST_HOST
        self._lans = 0
        self._switch = "br0"
        _make_bridge(self.gateway, "br0")
        if halves:
            _make_bridge(self.gateway, "br1")
            join(self.gateway, "half0", self.gateway, "half1")
            self._join_halves()
        self.gateway.ip("address", "add", f"{_PUBLIC[1]}/{_PUBLIC.prefixlen}", "dev", "br0")
        if ipv6:
            self.gateway.ip("address", "add", f"{_PUBLIC6[1]}/{_PUBLIC6.prefixlen}", "dev", "br0", "nodad")
        _forwarding(self.gateway)
        # Silence instead of `host unreachable`: to a puncher the internet says nothing about private addresses.
        self.gateway.ip_batch(*(f"route add blackhole {private}" for private in _PRIVATE))

    def build_in(self, *, far: bool) -> None:
        """In which half stands what is plugged in from now on."""
        self._switch = "br1" if far else "br0"

    def impair(self, spec: LinkSpec, seed: int) -> None:
        """From now on the halves are joined by a bad link."""
        self.gateway.ip("link", "delete", "half0")
        start_link(self.lab, (self.gateway, "half0"), (self.gateway, "half1"), spec, seed)
        self._join_halves()

    def _join_halves(self) -> None:
        self.gateway.ip_batch("link set half0 master br0 up", "link set half1 master br1 up")

    def public_host(self, role: str, *, ipv6: bool = True) -> Host:
        """A machine with a public address, and with an IPv6 one if this internet has IPv6."""
        namespace = self.lab.namespace(role)
        address, address6 = self._attach(namespace, "eth0", self.ipv6 and ipv6)
        return Host(namespace, "eth0", address, address6)

    def nat(
        self,
        role: str,
        kind: NatKind = NatKind.PORT_RESTRICTED,
        behind: NatBox | None = None,
        *,
        ipv6: bool = True,
    ) -> NatBox:
        """A NAT box without rules as yet (`NatBox.configure`), on the internet or behind another NAT."""
        namespace = self.lab.namespace(role)
        self._lans += 1
        lan = IPv4Network(f"192.168.{self._lans}.0/24")
        ipv6 = self.ipv6 and ipv6 and behind is None
        lan6 = IPv6Network(f"2001:db8:{self._lans:x}::/64") if ipv6 else None
        wan6 = None
        if behind is None:
            wan, wan6 = self._attach(namespace, "wan0", ipv6)
        else:
            wan = self._attach_lan(namespace, "wan0", behind)
        _make_bridge(namespace, "lan0")
        namespace.ip("address", "add", f"{lan[1]}/{lan.prefixlen}", "dev", "lan0")
        if lan6 is not None and wan6 is not None:
            namespace.ip("address", "add", f"{lan6[1]}/{lan6.prefixlen}", "dev", "lan0", "nodad")
            self.gateway.ip("-6", "route", "add", str(lan6), "via", str(wan6))
        _forwarding(namespace)
        return NatBox(namespace, kind, wan, lan, lan6)

    def edge(self, role: str, nat: NatBox, *, ipv4: bool = True) -> Host:
        """A machine behind a NAT box. Without `ipv4` it has an IPv6 address only."""
        namespace = self.lab.namespace(role)
        address = self._attach_lan(namespace, "eth0", nat)
        if not ipv4:
            namespace.ip("-4", "address", "flush", "dev", "eth0")
        address6 = None
        if nat.lan6 is not None:
            address6 = nat.lan6[nat.clients + 1]
            namespace.ip("address", "add", f"{address6}/{nat.lan6.prefixlen}", "dev", "eth0", "nodad")
            namespace.ip("-6", "route", "add", "default", "via", str(nat.lan6[1]))
        return Host(namespace, "eth0", address, address6)

    def plug(self, namespace: Namespace, interface: str, nat: NatBox) -> IPv4Address:
        """One more uplink of a machine, still without an address; the one that it may take there."""
        nat.clients += 1
        _plug(namespace, interface, nat.namespace, "lan0", f"port{nat.clients}")
        return nat.lan[nat.clients + 1]

    def _attach(self, namespace: Namespace, interface: str, ipv6: bool) -> tuple[IPv4Address, IPv6Address | None]:
        number, self._hosts = self._hosts, self._hosts + 1
        _plug(namespace, interface, self.gateway, self._switch, f"port{number}")
        namespace.ip_batch(
            f"address add {_PUBLIC[number]}/{_PUBLIC.prefixlen} dev {interface}", f"route add default via {_PUBLIC[1]}"
        )
        if not ipv6:
            return _PUBLIC[number], None
        namespace.ip_batch(
            f"address add {_PUBLIC6[number]}/{_PUBLIC6.prefixlen} dev {interface} nodad",
            f"route add ::/0 via {_PUBLIC6[1]}",
        )
        return _PUBLIC[number], _PUBLIC6[number]

    def _attach_lan(self, namespace: Namespace, interface: str, nat: NatBox) -> IPv4Address:
        nat.clients += 1
        address = nat.lan[nat.clients + 1]
        _plug(namespace, interface, nat.namespace, "lan0", f"port{nat.clients}")
        namespace.ip_batch(
            f"address add {address}/{nat.lan.prefixlen} dev {interface}", f"route add default via {nat.gateway}"
        )
        return address


@dataclass(frozen=True, slots=True)
class TwoNats:
    """A Nucleus and two edges, each behind its own NAT."""

    internet: Internet
    nucleus: Host
    nat_a: NatBox
    nat_b: NatBox
    edge_a: Host
    edge_b: Host


def two_nats(
    lab: Lab,
    kind_a: NatKind = NatKind.PORT_RESTRICTED,
    kind_b: NatKind = NatKind.PORT_RESTRICTED,
    *,
    forwards_b: tuple[int, ...] = (),
    ipv6: bool = False,
    configure: bool = True,
) -> TwoNats:
    """The second picture above. NAT B forwards the ports `forwards_b` to edge B."""
    internet = Internet(lab, ipv6=ipv6)
    nucleus = internet.public_host("nucleus")
    nat_a, nat_b = internet.nat("nat-a", kind_a), internet.nat("nat-b", kind_b)
    edge_a, edge_b = internet.edge("edge-a", nat_a), internet.edge("edge-b", nat_b)
    if configure:
        nat_a.configure(NatPolicy(kind_a, edge_a.address))
        nat_b.configure(NatPolicy(kind_b, edge_b.address, tuple(Forward(port, edge_b.address) for port in forwards_b)))
    return TwoNats(internet, nucleus, nat_a, nat_b, edge_a, edge_b)


def pair_lan(lab: Lab, *, mtu: int = 1500, roles: tuple[str, str] = ("a", "b")) -> tuple[Host, Host]:
    """The first picture above."""
    first, second = (lab.namespace(role) for role in roles)
    join(first, "eth0", second, "eth0")
    return address_pair(first, second, mtu)


def address_pair(first: Namespace, second: Namespace, mtu: int = 1500) -> tuple[Host, Host]:
    """Give two machines whose `eth0` are joined already the addresses of the first picture, and bring them up."""
    hosts = []
    for number, namespace in enumerate((first, second), start=1):
        namespace.ip_batch(
            f"link set eth0 mtu {mtu} up",
            f"address add {_PAIR[number]}/{_PAIR.prefixlen} dev eth0",
            f"address add {_PAIR6[number]}/{_PAIR6.prefixlen} dev eth0 nodad",
        )
        hosts.append(Host(namespace, "eth0", _PAIR[number], _PAIR6[number]))
    return hosts[0], hosts[1]


def join(first: Namespace, first_name: str, second: Namespace, second_name: str) -> None:
    """A veth pair between two machines; still down, and without addresses."""
    first.ip("link", "add", first_name, "type", "veth", "peer", "name", second_name, "netns", second.name)


def _plug(namespace: Namespace, interface: str, switch: Namespace, bridge: str, port: str) -> None:
    join(namespace, interface, switch, port)
    switch.ip("link", "set", port, "master", bridge, "up")
    namespace.ip("link", "set", interface, "up")


def _make_bridge(namespace: Namespace, name: str) -> None:
    namespace.ip("link", "add", name, "type", "bridge", "forward_delay", "0", "stp_state", "0")
    namespace.ip("link", "set", name, "up")
    # Frames between two ports of the bridge are no business of this machine's firewall.
    namespace.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", check=False)
    namespace.run("sysctl", "-qw", "net.bridge.bridge-nf-call-ip6tables=0", check=False)


def _forwarding(namespace: Namespace) -> None:
    namespace.sysctl({"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1})
