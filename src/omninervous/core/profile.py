"""What does not change about a peer: who it is, and why we talk to it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network

from omninervous.core.dataplane import Link, PeerId
from omninervous.core.noise import ZERO_PSK
from omninervous.wire.address import Endpoint

__all__ = ["Kind", "PeerProfile"]


class Kind(Enum):
    """Why we talk to a peer; the value is what `omni peers` shows."""

    MEMBER = "member"
    PAIR = "pair"
    WIREGUARD = "wireguard"
    NUCLEUS = "nucleus"


_LINKS = {
    Kind.MEMBER: Link.ETHERNET,
    Kind.PAIR: Link.ETHERNET,
    Kind.WIREGUARD: Link.IP,
    Kind.NUCLEUS: Link.SIGNALLING,
}


@dataclass(frozen=True, slots=True)
class PeerProfile:
    """What does not change about a peer."""

    id: PeerId
    kind: Kind
    psk: bytes = ZERO_PSK
    identity: bytes | None = None
    """Ed25519 key; None for a stock WireGuard peer."""
    endpoint: Endpoint | None = None
    """As configured."""
    allowed_ips: tuple[IPv4Network | IPv6Network, ...] = ()

    @property
    def link(self) -> Link:
        """What its transport payloads hold."""
        return _LINKS[self.kind]
