"""What others tell us about the NATs in front of us, in the terms of RFC 4787.

Every Nucleus, and every peer that answers a challenge, says from which address and port our datagram came. Seen from
two hosts alike: the mapping is endpoint-independent (section 4.1). With one host alone that cannot be known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from enum import Enum
from itertools import pairwise
from statistics import median_low

from omninervous.wire.address import Endpoint

__all__ = [
    "GUESSES",
    "GUESSES_PER_ATTEMPT",
    "NEAR_PORTS",
    "Filtering",
    "Mapping",
    "count_of",
    "mapping_of",
    "next_ports",
    "to_name",
]

NEAR_PORTS = 256
"""Two outside ports of one host that differ by no more are taken for a count; by chance they do in one case of 120."""
GUESSES_PER_ATTEMPT = 32
"""Ports guessed in one attempt to connect."""
GUESSES = 2 * GUESSES_PER_ATTEMPT
"""In all: each is repeated within ten seconds or so. Many NATs forget what was not answered after 20 to 30."""
MAX_PORT = 65535
OTHERS_NAMED = 2
"""Outside addresses that members see and no Nucleus does; a NAT that divides a machine's flows shows one or two."""


class Mapping(Enum):
    """The value is what `omni netcheck` says."""

    NONE = "none"
    """No NAT: others see an address of our own."""
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    """Or address- and port-dependent: to tell these apart takes a host with two ports."""
    UNKNOWN = "unknown"


class Filtering(Enum):
    """What gets in to a port that something has left from (section 5). The value is what `omni netcheck` says."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    """Everybody's datagrams."""
    ADDRESS_DEPENDENT = "address-dependent"
    """Those of hosts that were sent to, from whatever port."""
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    """Those of hosts and ports that were sent to."""
    UNKNOWN = "unknown"


def mapping_of(seen: Iterable[tuple[Endpoint, Endpoint]], own: Collection[Endpoint]) -> Mapping:
    """From pairs of (who looked, what it saw) of one IP version."""
    by_host = {who.host: what for who, what in seen}
    if by_host and all(what in own for what in by_host.values()):
        return Mapping.NONE
    if len(by_host) < 2:
        return Mapping.UNKNOWN
    return Mapping.ENDPOINT_INDEPENDENT if len(set(by_host.values())) == 1 else Mapping.ADDRESS_DEPENDENT


def count_of(outside: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """From the addresses that one machine is seen at: the first and the last of its newest ports, if its NAT seems to
    count them up with every new destination. Empty if on no IPv4 host most ports are near the next one."""
    ports: dict[str, set[int]] = {}
    for endpoint in outside:
        if ":" not in endpoint.host:
            ports.setdefault(endpoint.host, set()).add(endpoint.port)
    for host, seen in ports.items():
        ordered = sorted(seen)
        gaps = [later - earlier for earlier, later in pairwise(ordered)]
        last = ordered[-1]
        first = next(port for port in ordered if last - port <= NEAR_PORTS)
        if first < last and median_low(gaps) <= NEAR_PORTS:
            return (Endpoint(host, first), Endpoint(host, last))
    return ()


def to_name(seen: Sequence[Endpoint], by_nuclei: Collection[Endpoint]) -> tuple[tuple[Endpoint, ...], bool]:
    """From what everybody (once each), and what the Nuclei, see us as: the outside addresses to name to all others, and
    whether they are two of a count. A member may say what it likes: they are on a host where a Nucleus has seen us, and
    there is no count where most see the same port."""
    hosts = [each.host for each in by_nuclei]
    told = [each for each in seen if each.host in hosts]
    outside = sorted(dict.fromkeys(told))
    most = max(Counter(told).values(), default=0)
    count = () if 2 * most > len(told) else count_of(outside)
    others = [each for each in outside if each not in by_nuclei]
    # More than a few: a port for each destination, and none of them helps anybody else.
    return count or (tuple(others) if len(others) <= OTHERS_NAMED else ()), bool(count)


def next_ports(outside: Iterable[Endpoint], attempt: int) -> tuple[Endpoint, ...]:
    """Where a machine whose NAT counts (`count_of`) may be seen by a host that it has not answered yet: at a port that
    comes next, or at one between, from when it first wrote to that host. Empty if its NAT does not count. `attempt`
    counts from 1. A datagram that goes to the right port need not arrive: it opens our own NAT for what comes from
    there."""
    count = count_of(outside)
    if not count:
        return ()
    (host, first), (_, last) = count
    coming = range(last + 1, min(last + GUESSES, MAX_PORT) + 1)
    between = range(last - 1, first, -1)[:GUESSES_PER_ATTEMPT]
    likely = [*coming[:GUESSES_PER_ATTEMPT], *between, *coming[GUESSES_PER_ATTEMPT:]][:GUESSES]
    begin = (attempt - 1) * GUESSES_PER_ATTEMPT % GUESSES
    return tuple(Endpoint(host, port) for port in likely[begin : begin + GUESSES_PER_ATTEMPT])
