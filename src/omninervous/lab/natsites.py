"""Where a machine can stand in the network, and which pairs can be direct: the oracle of `omni lab nat`.

The verdict follows from the definitions of RFC 4787 alone, never from results. Two machines learn each other's outside
address from the Nucleus, and both send to it. A datagram from X arrives at Y exactly when

* Y's outside port is the one that the Nucleus saw: Y's mapping is endpoint-independent (section 4.1), and
* Y's filter lets it in (section 5). It lets in everybody (endpoint-independent), or hosts that Y has sent to
  (address-dependent), or address *and port* that Y has sent to: then X's outside port must be the known one, too.

The first datagram that arrives shows its true source, and the answer to that passes X's own filter. So a pair is
direct if a datagram arrives in *one* of the two directions:

| X's mapping          | Y lets in everybody | known hosts | known ports | Y's mapping differs |
|----------------------|---------------------|-------------|-------------|---------------------|
| endpoint-independent | direct              | direct      | direct      | look at Y -> X      |
| differs              | direct              | direct      | no          | no                  |

Besides: machines on one LAN need no NAT; over IPv6 there is none, and a stateful firewall is an endpoint-independent
mapping with a port-dependent filter; two clients of one carrier meet at its public address only if it hairpins
(section 6).

Where a mapping differs, but counts (the next destination gets the next port), an edge whose own mapping is
endpoint-independent can guess the port. Whether it does in time depends on what else has used up ports meanwhile: here
the verdict is `may be`, and both results are right.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import combinations_with_replacement

from omninervous.lab.nat import NatBehaviour, NatKind

__all__ = ["SITES", "Family", "Outcome", "Pair", "Site", "Verdict", "judge", "pairs_of"]


class Family(Enum):
    """How a site reaches the internet by one IP version."""

    NONE = "none"
    OPEN = "open"
    """A public address, and nothing in the way."""
    FIREWALLED = "firewalled"
    """A public address behind a firewall that lets in answers only."""


@dataclass(frozen=True, slots=True)
class Site:
    """A place for one machine."""

    name: str
    nats: tuple[NatKind, ...] = ()
    """IPv4 NATs on the way out, the machine's own first; none: a public IPv4 address, unless `ipv4` is False."""
    ipv4: bool = True
    ipv6: Family = Family.NONE
    udp_timeout: int | None = None
    """Seconds after which its NAT forgets a silent UDP flow; None: the kernel's 30 and 120."""
    siblings: str = ""
    """Sites of one name stand behind one box: see `judge`."""
    hairpin: bool = False
    """That box lets its clients reach one another through its public address."""

    @property
    def behaviour(self) -> NatBehaviour:
        """What all NATs on the way make of IPv4 together."""
        each = [kind.behaviour for kind in self.nats]
        if not self.ipv4 or not all(one.passes for one in each):
            return NatBehaviour(passes=False)
        return NatBehaviour(
            passes=True,
            same_mapping=all(one.same_mapping for one in each),
            from_other_port=all(one.from_other_port for one in each),
            from_other_host=all(one.from_other_host for one in each),
            counts=any(one.counts for one in each) and all(one.same_mapping or one.counts for one in each),
        )


_HOME = NatKind.PORT_RESTRICTED
SITES = (
    Site("public"),
    Site("full-cone", (NatKind.FULL_CONE,)),
    Site("address-restricted", (NatKind.ADDRESS_RESTRICTED,)),
    Site("port-restricted", (_HOME,)),
    Site("short-timeout", (_HOME,), udp_timeout=20),
    Site("symmetric", (NatKind.SYMMETRIC,)),
    Site("sequential", (NatKind.SEQUENTIAL,)),
    Site("double-nat", (_HOME, _HOME)),
    Site("carrier-symmetric", (_HOME, NatKind.SYMMETRIC)),
    Site("dual-stack", (_HOME,), ipv6=Family.FIREWALLED),
    Site("dual-symmetric", (NatKind.SYMMETRIC,), ipv6=Family.FIREWALLED),
    Site("ipv6-only", ipv4=False, ipv6=Family.FIREWALLED),
    Site("udp-blocked", (NatKind.UDP_BLOCKED,)),
    Site("same-lan", (_HOME,), siblings="one LAN"),
    Site("same-carrier", (_HOME, _HOME), siblings="one carrier"),
    Site("hairpin-carrier", (_HOME, _HOME), siblings="one carrier that hairpins", hairpin=True),
)
"""Every site is built twice, so that each kind also meets its own."""


class Outcome(Enum):
    """Whether a pair finds a direct path."""

    DIRECT = "direct"
    NONE = "none"
    MAY_BE = "may be"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the definitions say about a pair."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two machines that are to meet: the first one's site, and the other's."""

    a: Site
    b: Site

    @property
    def verdict(self) -> Verdict:
        return judge(self.a, self.b)


def pairs_of(sites: tuple[Site, ...]) -> list[Pair]:
    """Every pair of kinds, each kind with itself included."""
    return [Pair(a, b) for a, b in combinations_with_replacement(sites, 2)]


def judge(a: Site, b: Site) -> Verdict:
    """Whether two machines, one at each site, can be direct, and the reason."""
    for site in (a, b):
        if not site.behaviour.passes and site.ipv6 is Family.NONE:
            return Verdict(Outcome.NONE, f"{site.name}: no UDP gets out, not even to the Nucleus")
    if a.siblings and a.siblings == b.siblings:
        return _siblings(a)
    if Family.NONE not in (a.ipv6, b.ipv6):
        return Verdict(Outcome.DIRECT, "IPv6: no NAT, and both firewalls open for what leaves")
    return _ipv4(a, b)


def _siblings(site: Site) -> Verdict:
    if len(site.nats) == 1:
        return Verdict(Outcome.DIRECT, "both on one LAN")
    if site.hairpin:
        return Verdict(Outcome.DIRECT, "the carrier hairpins")
    return Verdict(Outcome.NONE, "one carrier without hairpin: its public address leads nowhere from inside")


def _ipv4(a: Site, b: Site) -> Verdict:
    for site in (a, b):
        if not site.behaviour.passes:
            return Verdict(Outcome.NONE, f"{site.name}: no IPv4 UDP, and the other has no IPv6")
    for sender, receiver in ((a, b), (b, a)):
        if _arrives(sender.behaviour, receiver.behaviour):
            return Verdict(Outcome.DIRECT, f"{sender.name} reaches {receiver.name}, and the answer comes back")
    for site, other in ((a, b), (b, a)):
        if not site.behaviour.same_mapping and not other.behaviour.same_mapping:
            return Verdict(Outcome.NONE, "neither side's outside port is known to the other")
        if site.behaviour.counts:
            return Verdict(Outcome.MAY_BE, f"{other.name} lets in known ports only, and {site.name}'s can be guessed")
        if not site.behaviour.same_mapping:
            return Verdict(Outcome.NONE, f"{other.name} lets in known ports only, and {site.name}'s is not known")
    raise AssertionError(f"no rule decides {a.name} and {b.name}")


def _arrives(sender: NatBehaviour, receiver: NatBehaviour) -> bool:
    if not receiver.same_mapping:
        return False
    return receiver.from_other_host or receiver.from_other_port or sender.same_mapping
