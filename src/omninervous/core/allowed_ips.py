"""Cryptokey routing (WireGuard): which stock peer an inner IP address belongs to, by the longest prefix."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from omninervous.core.dataplane import PeerId

__all__ = ["AllowedIps"]


class AllowedIps:
    """Prefixes of all stock peers. A prefix belongs to the peer that claimed it last, as in WireGuard."""

    __slots__ = ("_levels", "_tables")

    def __init__(self) -> None:
        self._tables: dict[tuple[int, int], dict[int, PeerId]] = {}  # (address bytes, prefix bits) -> prefix -> peer
        self._levels: dict[int, list[int]] = {4: [], 16: []}  # address bytes -> prefix bits, longest first

    def assign(self, peer: PeerId, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        """Replace all prefixes of a peer; none removes it."""
        for table in self._tables.values():
            for prefix in [prefix for prefix, owner in table.items() if owner == peer]:
                del table[prefix]
        for network in networks:
            size = network.max_prefixlen // 8
            prefix = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
            self._tables.setdefault((size, network.prefixlen), {})[prefix] = peer
        for size in self._levels:
            self._levels[size] = sorted((bits for width, bits in self._tables if width == size), reverse=True)

    def lookup(self, address: bytes) -> PeerId | None:
        """The peer of an address (4 or 16 bytes), None if no prefix covers it."""
        size = len(address)
        number = int.from_bytes(address, "big")
        for bits in self._levels[size]:
            peer = self._tables[size, bits].get(number >> (size * 8 - bits))
            if peer is not None:
                return peer
        return None
