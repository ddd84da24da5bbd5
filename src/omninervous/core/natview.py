"""What others tell us about the NATs in front of us, in the terms of RFC 4787.

Every Nucleus, and every peer that answers a challenge, says from which address and port our datagram came. Seen from
two hosts alike: the mapping is endpoint-independent (section 4.1). With one host alone that cannot be known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import Enum

from omninervous.wire.address import Endpoint

__all__ = ["Filtering", "Mapping", "mapping_of"]


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
