"""What kind of way an address is. Between equally fast ones, the higher kind is taken (`rank`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from omninervous.wire.address import Endpoint

__all__ = ["Network", "PathKind", "address_of", "kind_of"]

Network = IPv4Network | IPv6Network

_SITE_LOCAL: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10")
)
"""RFC 1918, 3927, 4193, 4291: addresses that mean something within one site only. An answer from one is from there."""


class PathKind(Enum):
    """The value is what `omni peers` shows."""

    LAN = "lan"
    """On a network of ours, or within the site."""
    IPV6 = "ipv6"
    DIRECT = "direct"
    """An IPv4 address that the peer itself named: its own public one, or a port that its gateway keeps open for it."""
    NAT = "nat"
    """An IPv4 address that somebody has who translates for the peer."""

    @property
    def rank(self) -> int:
        """What is preferred at the same round-trip time."""
        return {PathKind.LAN: 2, PathKind.IPV6: 1}.get(self, 0)


def kind_of(endpoint: Endpoint, networks: Sequence[Network], own_addresses: Collection[Endpoint] | None) -> PathKind:
    """The kind of a peer's address. `networks`: those we are on; `own_addresses`: what the peer's interfaces have, None
    if it did not say."""
    address = address_of(endpoint.host)
    if any(address in network for network in (*networks, *_SITE_LOCAL) if network.version == address.version):
        return PathKind.LAN
    if address.version == 6:
        return PathKind.IPV6
    return PathKind.DIRECT if own_addresses is None or endpoint in own_addresses else PathKind.NAT


@lru_cache(maxsize=4096)
def address_of(host: str) -> IPv4Address | IPv6Address:
    """The host of an endpoint."""
    return ip_address(host)
