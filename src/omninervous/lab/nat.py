"""The kinds of NAT, as nftables rulesets for a NAT box of the lab.

A NAT is two things: how it maps a client's port (the same outside port for every destination, or another for each)
and what it lets in to that port. The names are those of RFC 3489, the two properties those of RFC 4787.

| kind               | outside port per destination | reaches the client from: contacted / other port / other host |
|--------------------|------------------------------|---------------------------------------------------------------|
| full cone          | same                         | yes / yes / yes                                               |
| address-restricted | same                         | yes / yes / no                                                |
| port-restricted    | same                         | yes / no / no                                                 |
| symmetric          | differs, at random           | yes / no / no                                                 |
| sequential         | differs, the next number     | yes / no / no                                                 |
| UDP blocked        | none                         | none                                                          |
| router (no NAT)    | the client's own address     | only where the client's own address is routed                 |

Conntrack keeps its state through `nft flush ruleset`: one box is one kind for all its life.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address

__all__ = ["Forward", "NatBehaviour", "NatKind", "NatPolicy", "nat_ruleset"]


@dataclass(frozen=True, slots=True)
class NatBehaviour:
    """What a client behind a NAT observes (`natprobe.observe`)."""

    passes: bool
    """UDP gets out, and its answers come back."""
    same_mapping: bool = False
    """One client port has one outside port, whatever the destination."""
    from_other_port: bool = False
    """Datagrams from another port of a contacted host arrive."""
    from_other_host: bool = False
    """Datagrams from a host that was never contacted arrive."""
    counts: bool = False
    """Every new destination gets the outside port after the last one's."""


class NatKind(Enum):
    """What a NAT box does to UDP."""

    FULL_CONE = "full-cone"
    ADDRESS_RESTRICTED = "address-restricted"
    PORT_RESTRICTED = "port-restricted"
    SYMMETRIC = "symmetric"
    SEQUENTIAL = "sequential"
    UDP_BLOCKED = "udp-blocked"
    ROUTER = "router"

    @property
    def behaviour(self) -> NatBehaviour:
        """The definition of the kind."""
        return _BEHAVIOURS[self]


_BEHAVIOURS = {
    NatKind.FULL_CONE: NatBehaviour(True, True, True, True),
    NatKind.ADDRESS_RESTRICTED: NatBehaviour(True, True, True, False),
    NatKind.PORT_RESTRICTED: NatBehaviour(True, True, False, False),
    NatKind.SYMMETRIC: NatBehaviour(True, False, False, False),
    NatKind.SEQUENTIAL: NatBehaviour(True, False, False, False, counts=True),
    NatKind.UDP_BLOCKED: NatBehaviour(False),
    NatKind.ROUTER: NatBehaviour(False),
}


_SEQUENTIAL_FROM, _SEQUENTIAL_PORTS = 20000, 8192


@dataclass(frozen=True, slots=True)
class Forward:
    """A static port forward, TCP and UDP: what the owner of a NAT box can set by hand."""

    port: int
    client: IPv4Address


@dataclass(frozen=True, slots=True)
class NatPolicy:
    """A NAT box's configuration."""

    kind: NatKind
    client: IPv4Address | None = None
    """The client that the cone kinds with a `dnat` forward to: these kinds serve one client."""
    forwards: tuple[Forward, ...] = ()
    only_towards: IPv4Address | None = None
    """Masquerade for this destination alone: a NAT whose rule for everybody else is missing."""
    open_input: bool = False
    """Without the box's own firewall. Then an early datagram from outside leaves a conntrack entry that takes the
    tuple, and a plain masquerade chooses another outside port for that destination: a real race of hole punching."""

    hairpin: tuple[Forward, ...] = ()
    """Clients that reach one another through the box's public address, each by its own UDP port (RFC 4787 section 6,
    "external source IP address and port")."""


def nat_ruleset(policy: NatPolicy, wan: str, lan: str, address: IPv4Address) -> str:
    """The nftables ruleset of a NAT box between the interfaces `wan`, with its public `address`, and `lan`."""
    input_policy = "accept" if policy.open_input else "drop"
    return f"""
table ip omni_nat {{
    set seen {{ type ipv4_addr . inet_service; size 4096; flags dynamic, timeout; timeout 2m; }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
{_lines(_prerouting(policy, wan, lan, address))}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
{_lines(_postrouting(policy, wan, lan, address))}
    }}
    chain input {{
        type filter hook input priority filter; policy {input_policy};
        iifname "lo" accept
        ct state established,related accept
        icmp type echo-request accept
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
{_lines(_forward(policy, wan, lan))}
        iifname "{lan}" accept
        ct state established,related accept
        ct status dnat accept
    }}
}}
table ip6 omni_firewall {{
    chain forward {{
        type filter hook forward priority filter; policy drop;
        iifname "{lan}" accept
        ct state established,related accept
    }}
}}
"""


def _prerouting(policy: NatPolicy, wan: str, lan: str, address: IPv4Address) -> list[str]:
    rules = [
        f'iifname "{lan}" ip daddr {address} udp dport {each.port} dnat to {each.client}' for each in policy.hairpin
    ]
    for forward in policy.forwards:
        for protocol in ("tcp", "udp"):
            rules.append(f'iifname "{wan}" {protocol} dport {forward.port} dnat to {forward.client}')
    if policy.kind is NatKind.FULL_CONE:
        rules.append(f'iifname "{wan}" meta l4proto udp dnat to {_client(policy)}')
    elif policy.kind is NatKind.ADDRESS_RESTRICTED:
        rules.append(f'iifname "{wan}" meta l4proto udp ip saddr . udp dport @seen dnat to {_client(policy)}')
    return rules


def _postrouting(policy: NatPolicy, wan: str, lan: str, address: IPv4Address) -> list[str]:
    if policy.kind is NatKind.ROUTER:
        return []
    return [*_hairpin(policy, lan, address), *_towards_wan(policy, wan, address)]


def _hairpin(policy: NatPolicy, lan: str, address: IPv4Address) -> list[str]:
    return [f'oifname "{lan}" ip saddr {each.client} meta l4proto udp snat to {address}' for each in policy.hairpin]


def _towards_wan(policy: NatPolicy, wan: str, address: IPv4Address) -> list[str]:
    towards = f"ip daddr {policy.only_towards} " if policy.only_towards else ""
    if policy.kind is NatKind.SEQUENTIAL:
        # A bare `numgen ... offset` counts in the host's byte order: 8270, 8526, 8782 on a little-endian machine.
        numbers = ", ".join(f"{n} : {_SEQUENTIAL_FROM + n}" for n in range(_SEQUENTIAL_PORTS))
        next_port = f"numgen inc mod {_SEQUENTIAL_PORTS} map {{ {numbers} }}"
        return [
            f'oifname "{wan}" {towards}meta l4proto udp snat to {address} : {next_port}',
            f'oifname "{wan}" {towards}masquerade',
        ]
    how = " fully-random" if policy.kind is NatKind.SYMMETRIC else ""
    return [f'oifname "{wan}" {towards}masquerade{how}']


def _forward(policy: NatPolicy, wan: str, lan: str) -> list[str]:
    if policy.kind is NatKind.UDP_BLOCKED:
        return [f'iifname "{lan}" meta l4proto udp drop', f'iifname "{wan}" meta l4proto udp drop']
    if policy.kind is NatKind.ADDRESS_RESTRICTED:
        # Who was sent to, and from which port: masquerading keeps the port of a lone client.
        return [f'oifname "{wan}" meta l4proto udp update @seen {{ ip daddr . udp sport }}']
    return []


def _client(policy: NatPolicy) -> IPv4Address:
    assert policy.client is not None, f"a {policy.kind.value} NAT needs its client's address"
    return policy.client


def _lines(rules: list[str]) -> str:
    return "\n".join(f"        {rule}" for rule in rules)
