"""The source guard: what a peer may say on our segment (design: identity is the address).

A member owns one MAC, its VIP, its ULA, and the link-local address formed from the MAC. Everything else in its frames
is somebody else's: such a frame is refused here, before the local stack can learn from it.

| in the frame                        | allowed                                                                    |
|-------------------------------------|----------------------------------------------------------------------------|
| destination MAC                     | ours, broadcast, multicast                                                 |
| source MAC                          | the member's                                                               |
| IPv4, IPv6 source                   | its addresses, its link-local, unspecified (DHCP, duplicate detection)     |
| ARP sender                          | its MAC with its addresses, or with 0.0.0.0 (an ARP probe)                 |
| neighbour advertisement             | for a target of its own, with its MAC                                      |
| neighbour solicitation              | with its MAC; from the unspecified address only for a target of its own    |
| router advertisement, redirects     | never: nobody is a router here                                             |
| other ethertypes                    | anything behind its own MAC                                                |

The same holds behind one or two VLAN tags; a third tag is refused. A bridged LAN behind an edge breaks the rule for
source MACs, so its frames end here (and already at its own edge, as `bridged_source`).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.frame import (
    ETHERNET_HEADER_SIZE,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    IpPacket,
    decode_arp,
    decode_ip,
    eui64_link_local,
    network_header,
)
from omninervous.wire.neighbour import (
    NEIGHBOUR_ADVERTISEMENT,
    REDIRECT,
    ROUTER_ADVERTISEMENT,
    ROUTER_SOLICITATION,
    decode_neighbour,
    link_layer_options,
)

__all__ = ["SourceGuard", "check_frame", "check_routed_packet"]

_PLAIN_IPV4 = b"\x08\x00\x45"
"""Ethertype, and the first byte of a header without options."""
_IPV4_HEADER_SIZE = 20
_PLAIN_IPV4_SIZE = ETHERNET_HEADER_SIZE + _IPV4_HEADER_SIZE
_ICMP_REDIRECT = 5
_ROUTER_SOLICITATION_SIZE = 8
_DISCOVERY_TYPES = range(ROUTER_SOLICITATION, REDIRECT + 1)
_UNSPECIFIED4 = bytes(4)
_UNSPECIFIED6 = bytes(16)


class SourceGuard:
    """The policy for one member's frames, prepared once."""

    __slots__ = ("_ipv4", "_ipv6", "_mac", "_own_mac", "_usual_macs")

    def __init__(self, own_mac: bytes, mac: bytes, addresses: Iterable[IPv4Address | IPv6Address]) -> None:
        """`own_mac`: of our omni0. `mac`, `addresses`: the member's; its link-local address need not be listed."""
        packed = [address.packed for address in addresses]
        self._own_mac = own_mac
        self._mac = mac
        self._usual_macs = own_mac + mac
        self._ipv4 = frozenset([each for each in packed if len(each) == 4])
        self._ipv6 = frozenset([each for each in packed if len(each) == 16] + [eui64_link_local(mac).packed])

    def check(self, frame: bytes) -> None:
        """Return if the member may send this frame to us.

        RemoteError `source_guard`, `destination_guard`, `router_advertisement`, `redirect`; DecodeError for what
        cannot be parsed as far as the rules need.
        """
        if frame[:12] == self._usual_macs and self._usual_ipv4(frame):
            return
        ethertype, offset = network_header(frame)
        if frame[6:12] != self._mac:
            raise RemoteError("source_guard", f"source MAC {frame[6:12].hex(':')} is not the peer's (a bridged LAN?)")
        if not frame[0] & 1 and frame[:6] != self._own_mac:
            raise RemoteError("destination_guard", f"unicast for {frame[:6].hex(':')}")
        if ethertype == ETHERTYPE_IPV4:
            self._check_ipv4(frame, _decode_ip_version(frame, offset, 4))
        elif ethertype == ETHERTYPE_IPV6:
            self._check_ipv6(frame, _decode_ip_version(frame, offset, 6))
        elif ethertype == ETHERTYPE_ARP:
            self._check_arp(frame)

    def _usual_ipv4(self, frame: bytes) -> bool:
        """A short way to "yes" for nearly all frames: IPv4 without tag, options or ICMP, by the same rules."""
        return (
            frame[12:15] == _PLAIN_IPV4
            and len(frame) >= _PLAIN_IPV4_SIZE
            and frame[23] != PROTOCOL_ICMP
            and frame[26:30] in self._ipv4
            and _IPV4_HEADER_SIZE <= frame[16] << 8 | frame[17] <= len(frame) - ETHERNET_HEADER_SIZE
        )

    def _check_ipv4(self, frame: bytes, packet: IpPacket) -> None:
        if packet.source not in self._ipv4 and packet.source != _UNSPECIFIED4:
            raise RemoteError("source_guard", f"IPv4 source {IPv4Address(packet.source)}")
        if packet.protocol == PROTOCOL_ICMP:
            _refuse_icmp_redirect(frame, packet)

    def _check_arp(self, frame: bytes) -> None:
        arp = decode_arp(frame)
        if arp.sender_mac != self._mac:
            raise RemoteError("source_guard", f"ARP for MAC {arp.sender_mac.hex(':')}")
        if arp.sender.packed not in self._ipv4 and arp.sender.packed != _UNSPECIFIED4:
            raise RemoteError("source_guard", f"ARP for {arp.sender}")

    def _check_ipv6(self, frame: bytes, packet: IpPacket) -> None:
        if packet.source not in self._ipv6 and packet.source != _UNSPECIFIED6:
            raise RemoteError("source_guard", f"IPv6 source {IPv6Address(packet.source)}")
        if packet.protocol != PROTOCOL_ICMPV6 or not packet.first:
            return
        kind = _icmp_type(frame, packet)
        if kind == ROUTER_ADVERTISEMENT:
            raise RemoteError("router_advertisement")
        if kind == REDIRECT:
            raise RemoteError("redirect", "ICMPv6")
        if kind not in _DISCOVERY_TYPES:
            return
        if packet.fragment:
            raise RemoteError("source_guard", "fragmented neighbour discovery")  # RFC 6980
        if kind == ROUTER_SOLICITATION:
            self._check_link_addresses(
                link_layer_options(frame[packet.upper_offset + _ROUTER_SOLICITATION_SIZE : packet.end])
            )
        else:
            self._check_neighbour(frame)

    def _check_neighbour(self, frame: bytes) -> None:
        message = decode_neighbour(frame)
        self._check_link_addresses(message.link_addresses)
        # A solicitation from the unspecified address says "I am about to use this address": for any other target it
        # would make that target's owner give it up (RFC 4862, section 5.4.3).
        claims = message.type == NEIGHBOUR_ADVERTISEMENT or message.source.packed == _UNSPECIFIED6
        if claims and message.target.packed not in self._ipv6:
            raise RemoteError("source_guard", f"neighbour message claims {message.target}")

    def _check_link_addresses(self, found: tuple[bytes, ...]) -> None:
        if any(address != self._mac for address in found):
            raise RemoteError("source_guard", "neighbour message for another MAC")


def check_frame(
    frame: bytes, mac: bytes, addresses: Iterable[IPv4Address | IPv6Address], own_mac: bytes = b"\xff" * 6
) -> None:
    """One check without a prepared `SourceGuard`, with the same errors. Without `own_mac`, no unicast is for us."""
    SourceGuard(own_mac, mac, addresses).check(frame)


def check_routed_packet(packet: bytes) -> IpPacket:
    """Headers of the raw IP packet of a stock peer, if it may enter our segment at all.

    Neighbour discovery and redirects are refused: they speak about a link that such a peer is not on. Its source
    address is the caller's to check (cryptokey routing). RemoteError `router_advertisement`, `redirect`,
    `source_guard`; DecodeError.
    """
    headers = decode_ip(packet)
    if headers.version == 4 and headers.protocol == PROTOCOL_ICMP:
        _refuse_icmp_redirect(packet, headers)
    elif headers.version == 6 and headers.protocol == PROTOCOL_ICMPV6 and headers.first:
        kind = _icmp_type(packet, headers)
        if kind in _DISCOVERY_TYPES:
            reasons = {ROUTER_ADVERTISEMENT: "router_advertisement", REDIRECT: "redirect"}
            raise RemoteError(reasons.get(kind, "source_guard"), f"ICMPv6 type {kind} from a routed peer")
    return headers


def _decode_ip_version(frame: bytes, offset: int, version: int) -> IpPacket:
    packet = decode_ip(frame, offset)
    if packet.version != version:
        raise DecodeError(f"IPv{packet.version} under the other version's ethertype")
    return packet


def _icmp_type(data: bytes, packet: IpPacket) -> int:
    if packet.upper_offset >= packet.end:
        raise DecodeError("ICMP message of no bytes")
    return data[packet.upper_offset]


def _refuse_icmp_redirect(data: bytes, packet: IpPacket) -> None:
    if packet.first and _icmp_type(data, packet) == _ICMP_REDIRECT:
        raise RemoteError("redirect", "ICMP")
