"""Address resolution without broadcasts: what becomes of the frames that the data plane has no way for.

| frame from the local stack                          | outcome                                                     |
|-----------------------------------------------------|-------------------------------------------------------------|
| ARP or ND for an address that a known peer holds    | `Answer`: a reply made here, and a session is begun         |
| ARP or ND for another address of the overlay        | `Ask` the Nucleus; the frame waits for the answer           |
| the same from the unspecified address (DAD)         | answered if a known peer holds it, never asked              |
| unicast to the MAC of a known peer                  | `Stage`: waits for a session                                |
| unicast to an unknown MAC                           | `Ask` the Nucleus; the frame waits for the answer           |
| anything else                                       | dropped, counted                                            |
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Network

from omninervous.core.context import Context
from omninervous.core.dataplane import PeerId
from omninervous.core.events import PeerConfig
from omninervous.core.identity import ULA_NETWORK, synthetic_mac
from omninervous.core.own import OwnAddress
from omninervous.core.queries import Target
from omninervous.core.roster import Roster
from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.frame import ARP_REQUEST, ETHERNET_HEADER_SIZE, build_arp_reply, decode_arp
from omninervous.wire.neighbour import NEIGHBOUR_SOLICITATION, build_neighbour_advertisement, decode_neighbour

__all__ = ["Answer", "Ask", "Discovery", "Outcome", "Stage"]

MAX_WAITING_TARGETS = 256
MAX_WAITING_FRAMES = 4
_LINK_LOCAL = IPv6Network("fe80::/64")
_GROUP_BIT = 0x01


@dataclass(frozen=True, slots=True)
class Answer:
    """Give the local stack this reply."""

    peer: PeerId
    reply: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """Nobody here knows it: query."""

    target: Target


@dataclass(frozen=True, slots=True)
class Stage:
    """The frame is for this peer."""

    peer: PeerId
    frame: bytes


Outcome = Answer | Ask | Stage


class Discovery:
    """Resolves addresses from the roster and from the routes of stock peers."""

    def __init__(self, ctx: Context, roster: Roster, own: OwnAddress) -> None:
        self._ctx = ctx
        self._roster = roster
        self._own = own
        self._waiting: OrderedDict[Target, list[bytes]] = OrderedDict()

    def handle_frame(self, frame: bytes) -> Outcome:
        """What to do with a frame. RemoteError names the reason why nothing is done."""
        try:
            arp = decode_arp(frame)
        except DecodeError:
            pass
        else:
            if arp.operation != ARP_REQUEST or arp.gratuitous:
                raise RemoteError("arp_local")
            return self._resolve(frame, arp.target, probe=int(arp.sender) == 0)
        try:
            message = decode_neighbour(frame)
        except DecodeError:
            return self._unicast(frame)
        if message.type != NEIGHBOUR_SOLICITATION:
            return self._unicast(frame)
        return self._resolve(frame, message.target, probe=message.source.is_unspecified)

    def wait(self, target: Target, frame: bytes) -> None:
        """Keep a frame until the target is known, or is known to be nobody's."""
        frames = self._waiting.setdefault(target, [])
        if len(frames) < MAX_WAITING_FRAMES:
            frames.append(frame)
        else:
            self._ctx.drop("unresolved_full")
        if len(self._waiting) > MAX_WAITING_TARGETS:
            self._waiting.popitem(last=False)

    def settle(self, target: Target) -> list[bytes]:
        """The query for this target is over: the frames that waited for it."""
        return self._waiting.pop(target, [])

    # ------------------------------------------------------------ inside

    def _resolve(self, frame: bytes, address: IPv4Address | IPv6Address, *, probe: bool) -> Outcome:
        if address == self._own.ula or (self._own.held and address == self._own.claim.address):
            raise RemoteError("own_address")
        known = self._roster.holder(address)
        if known is None and address in _LINK_LOCAL:
            known = self._roster.by_mac(_mac_of_link_local(address))
        if known is not None:
            return Answer(known.key, _reply(frame, address, known.mac))
        stock = self._route(address)
        if stock is not None and not probe:
            return Answer(stock.x25519, _reply(frame, address, synthetic_mac(stock.x25519)))
        if probe:
            raise RemoteError("address_probe")
        if isinstance(address, IPv4Address):
            claim = self._own.claim
            if address not in IPv4Interface((claim.address, claim.prefix)).network:
                raise RemoteError("unresolved")
            return Ask(Target(address=address))
        if address in ULA_NETWORK:
            return Ask(Target(address=address))
        if address in _LINK_LOCAL and address.packed[11:13] == b"\xff\xfe":
            return Ask(Target(mac=_mac_of_link_local(address)))
        raise RemoteError("unresolved")

    def _unicast(self, frame: bytes) -> Outcome:
        mac = frame[:6]
        if len(frame) < ETHERNET_HEADER_SIZE or mac[0] & _GROUP_BIT:
            raise RemoteError("unresolved")
        known = self._roster.by_mac(mac)
        if known is not None:
            return Stage(known.key, frame)
        return Ask(Target(mac=mac))

    def _route(self, address: IPv4Address | IPv6Address) -> PeerConfig | None:
        """The stock peer with the longest prefix that holds the address."""
        best = max(
            (
                (network.prefixlen, -order)
                for order, peer in enumerate(self._ctx.peers)
                if peer.ed25519 is None
                for network in peer.allowed_ips
                if address in network
            ),
            default=None,
        )
        return None if best is None else self._ctx.peers[-best[1]]


def _reply(frame: bytes, address: IPv4Address | IPv6Address, mac: bytes) -> bytes:
    return (
        build_arp_reply(frame, mac) if isinstance(address, IPv4Address) else build_neighbour_advertisement(frame, mac)
    )


def _mac_of_link_local(address: IPv4Address | IPv6Address) -> bytes:
    interface = address.packed[8:]
    return bytes([interface[0] ^ 0x02]) + interface[1:3] + interface[5:]
