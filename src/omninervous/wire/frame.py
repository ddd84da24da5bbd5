"""Ethernet frames of `omni0`: Ethernet II with up to two VLAN tags, ARP, IPv4 and IPv6 headers, checksums.

Parsers look at bytes that a hostile member wrote: they check every length and raise only DecodeError. Neighbour
discovery (ICMPv6) is in `neighbour.py`. All integers are in network byte order.

Ethernet II, IEEE 802.3 and 802.1Q (each tag is 4 bytes, at most two are parsed)::

     0             6        12                       14 (18, 22)
    +-------------+--------+------------------------+------+---------+
    | destination | source | [0x8100 or 0x88A8, TCI]| type | payload |
    +-------------+--------+------------------------+------+---------+

ARP for IPv4 over Ethernet (RFC 826), 28 bytes::

     0        2        4      5      6      8            14          18           24          28
    +--------+--------+------+------+------+------------+-----------+------------+-----------+
    | 0x0001 | 0x0800 | 0x06 | 0x04 | oper | sender MAC | sender IP | target MAC | target IP |
    +--------+--------+------+------+------+------------+-----------+------------+-----------+
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from omninervous.errors import DecodeError

__all__ = [
    "ARP_REPLY",
    "ARP_REQUEST",
    "BROADCAST_MAC",
    "ETHERNET_HEADER_SIZE",
    "ETHERTYPE_ARP",
    "ETHERTYPE_IPV4",
    "ETHERTYPE_IPV6",
    "PROTOCOL_ICMP",
    "PROTOCOL_ICMPV6",
    "PROTOCOL_TCP",
    "PROTOCOL_UDP",
    "ArpPacket",
    "IpPacket",
    "build_arp_reply",
    "build_ethernet",
    "complete_checksum",
    "decode_arp",
    "decode_ip",
    "eui64_link_local",
    "internet_checksum",
    "network_header",
    "pseudo_header_sum",
]

MAC_SIZE = 6
ETHERNET_HEADER_SIZE = 14
VLAN_TAG_SIZE = 4
MAX_VLAN_TAGS = 2
ARP_SIZE = 28
IPV4_MIN_HEADER_SIZE = 20
IPV6_HEADER_SIZE = 40
MAX_EXTENSION_HEADERS = 8

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_IPV6 = 0x86DD
_VLAN_TPIDS = (0x8100, 0x88A8)
BROADCAST_MAC = b"\xff" * MAC_SIZE

ARP_REQUEST = 1
ARP_REPLY = 2

PROTOCOL_ICMP = 1
PROTOCOL_TCP = 6
PROTOCOL_UDP = 17
PROTOCOL_ICMPV6 = 58
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION_OPTIONS = 0, 43, 44, 51, 60

_ARP = struct.Struct(">HHBBH6s4s6s4s")
_CHECKSUM_OFFSETS = {PROTOCOL_TCP: 16, PROTOCOL_UDP: 6}
_L4_HEADER_SIZES = {PROTOCOL_TCP: 20, PROTOCOL_UDP: 8}


def network_header(frame: bytes) -> tuple[int, int]:
    """`(ethertype, offset)` of what follows the Ethernet header and its VLAN tags.

    DecodeError for a frame shorter than its header, or with a third tag: what hides behind it cannot be checked.
    """
    if len(frame) < ETHERNET_HEADER_SIZE:
        raise DecodeError(f"frame of {len(frame)} bytes is shorter than an Ethernet header")
    offset = ETHERNET_HEADER_SIZE
    ethertype = int.from_bytes(frame[offset - 2 : offset], "big")
    for _ in range(MAX_VLAN_TAGS):
        if ethertype not in _VLAN_TPIDS:
            return ethertype, offset
        offset += VLAN_TAG_SIZE
        if len(frame) < offset:
            raise DecodeError("frame ends inside a VLAN tag")
        ethertype = int.from_bytes(frame[offset - 2 : offset], "big")
    if ethertype in _VLAN_TPIDS:
        raise DecodeError(f"frame with more than {MAX_VLAN_TAGS} VLAN tags")
    return ethertype, offset


def build_ethernet(destination: bytes, source: bytes, ethertype: int, payload: bytes, tags: bytes = b"") -> bytes:
    """A frame without check sequence. `tags` are whole VLAN tags (4 bytes each), as they stood in another frame."""
    return destination + source + tags + ethertype.to_bytes(2, "big") + payload


def eui64_link_local(mac: bytes) -> IPv6Address:
    """The link-local address that an interface forms from its MAC (RFC 4291, appendix A)."""
    return IPv6Address(b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 0x02]) + mac[1:3] + b"\xff\xfe" + mac[3:])


# ---------------------------------------------------------------- ARP


@dataclass(frozen=True, slots=True)
class ArpPacket:
    """ARP for IPv4 over Ethernet. `operation`: ARP_REQUEST, ARP_REPLY, or another number as it came."""

    operation: int
    sender_mac: bytes
    sender: IPv4Address
    target_mac: bytes
    target: IPv4Address

    @property
    def gratuitous(self) -> bool:
        """An announcement (RFC 5227, section 3): the sender speaks of its own address."""
        return self.sender == self.target

    def encode(self) -> bytes:
        """The 28 bytes after the Ethernet header."""
        return _ARP.pack(
            1,
            ETHERTYPE_IPV4,
            MAC_SIZE,
            4,
            self.operation,
            self.sender_mac,
            self.sender.packed,
            self.target_mac,
            self.target.packed,
        )


def decode_arp(frame: bytes) -> ArpPacket:
    """The ARP packet of a frame. DecodeError if it is none, or not IPv4 over Ethernet. Padding after it is ignored."""
    ethertype, offset = network_header(frame)
    if ethertype != ETHERTYPE_ARP or len(frame) < offset + ARP_SIZE:
        raise DecodeError("not an ARP packet")
    hardware, protocol, hardware_size, protocol_size, operation, sender_mac, sender, target_mac, target = (
        _ARP.unpack_from(frame, offset)
    )
    if (hardware, protocol, hardware_size, protocol_size) != (1, ETHERTYPE_IPV4, MAC_SIZE, 4):
        raise DecodeError("ARP for other than IPv4 over Ethernet")
    return ArpPacket(operation, sender_mac, IPv4Address(sender), target_mac, IPv4Address(target))


def build_arp_reply(request: bytes, mac: bytes) -> bytes:
    """The frame that answers the ARP request in the frame `request`: its target is at `mac`. VLAN tags are kept."""
    arp = decode_arp(request)
    if arp.operation != ARP_REQUEST:
        raise DecodeError(f"ARP operation {arp.operation} asks for nothing")
    _, offset = network_header(request)
    tags = request[2 * MAC_SIZE : offset - 2]
    reply = ArpPacket(ARP_REPLY, mac, arp.target, arp.sender_mac, arp.sender)
    return build_ethernet(request[MAC_SIZE : 2 * MAC_SIZE], mac, ETHERTYPE_ARP, reply.encode(), tags)


# ---------------------------------------------------------------- IPv4 and IPv6


class IpPacket(NamedTuple):
    """Headers of an IP packet inside a larger buffer; offsets count from the start of that buffer.

    A tuple because the source guard makes one for every frame: a frozen dataclass costs several times as much.
    """

    version: int
    source: bytes
    """4 or 16 bytes."""
    destination: bytes
    protocol: int
    """The upper layer's number, after the IPv6 extension headers (of a later fragment: the first header in it)."""
    upper_offset: int
    end: int
    """Where the packet ends by its own length field; the buffer may go on with padding."""
    fragment: bool
    """A piece of a larger packet."""
    first: bool
    """Its piece at offset 0, or no fragment at all: only then does an upper-layer header stand at `upper_offset`."""


def decode_ip(data: bytes, offset: int = 0) -> IpPacket:
    """Parse the IPv4 or IPv6 packet at `offset`.

    DecodeError for a wrong version, lengths that do not fit, and an IPv6 header chain that is longer than
    8 headers or not complete in the first fragment (RFC 7112).
    """
    version = data[offset] >> 4 if len(data) > offset else 0
    if version == 4:
        return _decode_ipv4(data, offset)
    if version == 6:
        return _decode_ipv6(data, offset)
    raise DecodeError(f"IP version {version}")


def _decode_ipv4(data: bytes, offset: int) -> IpPacket:
    if len(data) < offset + IPV4_MIN_HEADER_SIZE:
        raise DecodeError("IPv4 header cut short")
    header_size = (data[offset] & 0x0F) * 4
    total = int.from_bytes(data[offset + 2 : offset + 4], "big")
    if not IPV4_MIN_HEADER_SIZE <= header_size <= total <= len(data) - offset:
        raise DecodeError(f"IPv4 lengths {header_size} and {total} do not fit {len(data) - offset} bytes")
    fragment_field = int.from_bytes(data[offset + 6 : offset + 8], "big")
    return IpPacket(
        version=4,
        source=data[offset + 12 : offset + 16],
        destination=data[offset + 16 : offset + 20],
        protocol=data[offset + 9],
        upper_offset=offset + header_size,
        end=offset + total,
        fragment=fragment_field & 0x3FFF != 0,
        first=fragment_field & 0x1FFF == 0,
    )


def _decode_ipv6(data: bytes, offset: int) -> IpPacket:
    if len(data) < offset + IPV6_HEADER_SIZE:
        raise DecodeError("IPv6 header cut short")
    upper = offset + IPV6_HEADER_SIZE
    end = upper + int.from_bytes(data[offset + 4 : offset + 6], "big")
    if end > len(data):
        raise DecodeError(f"IPv6 packet ends {end - len(data)} bytes after its frame")
    protocol = data[offset + 6]
    fragment, first = False, True
    for _ in range(MAX_EXTENSION_HEADERS):
        size = _extension_size(data, protocol, upper, end)
        if size == 0:
            break
        if protocol == _FRAGMENT:
            field = int.from_bytes(data[upper + 2 : upper + 4], "big")
            fragment = fragment or field & 0xFFF9 != 0
            first = first and field & 0xFFF8 == 0
        protocol = data[upper]
        upper += size
        if not first:
            break
    else:
        raise DecodeError(f"more than {MAX_EXTENSION_HEADERS} IPv6 extension headers")
    return IpPacket(
        6, data[offset + 8 : offset + 24], data[offset + 24 : offset + 40], protocol, upper, end, fragment, first
    )


def _extension_size(data: bytes, protocol: int, offset: int, end: int) -> int:
    """Bytes of the extension header `protocol` at `offset`, 0 if it is an upper layer; DecodeError if cut short."""
    if protocol in (_HOP_BY_HOP, _ROUTING, _DESTINATION_OPTIONS, _FRAGMENT, _AUTHENTICATION):
        if offset + 8 > end:
            raise DecodeError("IPv6 extension header cut short")
        if protocol == _FRAGMENT:
            return 8
        size = (data[offset + 1] + 2) * 4 if protocol == _AUTHENTICATION else (data[offset + 1] + 1) * 8
        if offset + size > end:
            raise DecodeError("IPv6 extension header cut short")
        return size
    return 0


# ---------------------------------------------------------------- checksums


def internet_checksum(data: bytes, initial: int = 0) -> int:
    """RFC 1071 checksum of `data` plus the sum `initial`, 0..0xFFFF: the value that a header field carries."""
    return ~_fold(_words(data) + initial) & 0xFFFF


def pseudo_header_sum(packet: IpPacket) -> int:
    """Folded sum over the pseudo-header of an unfragmented packet (RFC 9293 and 8200), not complemented."""
    length = packet.end - packet.upper_offset
    return _fold(_words(packet.source) + _words(packet.destination) + packet.protocol + length)


def complete_checksum(frame: bytes) -> bytes:
    """The frame of an ETHERNET_PARTIAL payload with its TCP or UDP checksum finished.

    The field holds the pseudo-header's sum, as a kernel leaves it for its network card (CHECKSUM_PARTIAL).
    DecodeError unless the frame is exactly one unfragmented IPv4 or IPv6 packet with a whole TCP or UDP header.
    """
    ethertype, offset = network_header(frame)
    if ethertype not in (ETHERTYPE_IPV4, ETHERTYPE_IPV6):
        raise DecodeError("partial checksum outside of IP")
    packet = decode_ip(frame, offset)
    if packet.version != (4 if ethertype == ETHERTYPE_IPV4 else 6):
        raise DecodeError("ethertype and IP version differ")
    if packet.protocol not in _CHECKSUM_OFFSETS or packet.fragment or packet.end != len(frame):
        raise DecodeError("partial checksum of something else than one whole TCP or UDP packet")
    least = _L4_HEADER_SIZES[packet.protocol]
    room = packet.end - packet.upper_offset
    if room < least:
        raise DecodeError("TCP or UDP header cut short")
    if packet.protocol == PROTOCOL_TCP and not least <= (frame[packet.upper_offset + 12] >> 4) * 4 <= room:
        raise DecodeError("TCP data offset outside of the packet")
    field = packet.upper_offset + _CHECKSUM_OFFSETS[packet.protocol]
    checksum = internet_checksum(frame[packet.upper_offset :])
    if packet.protocol == PROTOCOL_UDP and checksum == 0:
        checksum = 0xFFFF  # RFC 768: 0 would say that there is no checksum
    return frame[:field] + checksum.to_bytes(2, "big") + frame[field + 2 :]


def _words(data: bytes) -> int:
    """A number congruent to the sum of the 16-bit words of `data` modulo 65535 (RFC 1071, section 2: byte order and
    grouping do not matter), because 2^16 = 1 modulo 65535: one long division instead of a loop."""
    return int.from_bytes(data if len(data) % 2 == 0 else data + b"\x00", "big")


def _fold(total: int) -> int:
    """One's complement sum of 16 bits. Only a sum of zeros folds to 0; any other multiple of 65535 is 0xFFFF."""
    return (total - 1) % 0xFFFF + 1 if total else 0
