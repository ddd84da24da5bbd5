"""IPv6 neighbour discovery on `omni0` (RFC 4861): solicitations and advertisements, read and built.

Neighbour solicitation (type 135) and advertisement (type 136), after the IPv6 header::

     0      1      2          4       8                24
    +------+------+----------+-------+----------------+---------+
    | type | code | checksum | flags | target address | options |
    +------+------+----------+-------+----------------+---------+

Flags of an advertisement: 0x80 router, 0x40 solicited, 0x20 override. An option::

     0      1                    2
    +------+--------------------+-------+
    | type | length in 8 bytes  | value |     1 source link-layer address, 2 target link-layer address
    +------+--------------------+-------+
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address

from omninervous.errors import DecodeError
from omninervous.wire.frame import (
    ETHERTYPE_IPV6,
    PROTOCOL_ICMPV6,
    IpPacket,
    build_ethernet,
    decode_ip,
    internet_checksum,
    network_header,
    pseudo_header_sum,
)

__all__ = [
    "NEIGHBOUR_ADVERTISEMENT",
    "NEIGHBOUR_SOLICITATION",
    "REDIRECT",
    "ROUTER_ADVERTISEMENT",
    "ROUTER_SOLICITATION",
    "NeighbourMessage",
    "build_neighbour_advertisement",
    "decode_neighbour",
    "link_layer_options",
]

ROUTER_SOLICITATION = 133
ROUTER_ADVERTISEMENT = 134
NEIGHBOUR_SOLICITATION = 135
NEIGHBOUR_ADVERTISEMENT = 136
REDIRECT = 137

NEIGHBOUR_SIZE = 24
OPTION_UNIT = 8
HOP_LIMIT = 255
"""Required by RFC 4861: proves that no router forwarded the packet."""

_SOURCE_LINK_ADDRESS = 1
_TARGET_LINK_ADDRESS = 2
_SOLICITED, _OVERRIDE = 0x40, 0x20
_UNSPECIFIED = IPv6Address(0)
_ALL_NODES = IPv6Address("ff02::1")


@dataclass(frozen=True, slots=True)
class NeighbourMessage:
    """A neighbour solicitation or advertisement."""

    type: int
    """NEIGHBOUR_SOLICITATION or NEIGHBOUR_ADVERTISEMENT."""
    source: IPv6Address
    destination: IPv6Address
    target: IPv6Address
    solicited: bool
    """An advertisement that answers a solicitation."""
    link_addresses: tuple[bytes, ...]
    """Values of all link-layer address options; one, or none, in honest messages."""


def decode_neighbour(frame: bytes) -> NeighbourMessage:
    """The solicitation or advertisement in a frame. DecodeError if it holds something else. The ICMPv6 checksum is
    left to the kernel that gets the frame."""
    ethertype, offset = network_header(frame)
    if ethertype != ETHERTYPE_IPV6:
        raise DecodeError("not IPv6")
    packet = decode_ip(frame, offset)
    start = packet.upper_offset
    if (
        packet.version != 6
        or packet.protocol != PROTOCOL_ICMPV6
        or packet.fragment
        or packet.end - start < NEIGHBOUR_SIZE
    ):
        raise DecodeError("not a neighbour message")
    if frame[start] not in (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT):
        raise DecodeError(f"ICMPv6 type {frame[start]} is not a neighbour message")
    return NeighbourMessage(
        type=frame[start],
        source=IPv6Address(packet.source),
        destination=IPv6Address(packet.destination),
        target=IPv6Address(frame[start + 8 : start + 24]),
        solicited=frame[start] == NEIGHBOUR_ADVERTISEMENT and bool(frame[start + 4] & _SOLICITED),
        link_addresses=link_layer_options(frame[start + NEIGHBOUR_SIZE : packet.end]),
    )


def link_layer_options(options: bytes) -> tuple[bytes, ...]:
    """Values of the source and target link-layer address options in the options of any discovery message.

    DecodeError if an option is cut short or has length 0 (RFC 4861, section 4.6: such a packet is discarded).
    """
    found: list[bytes] = []
    offset = 0
    while offset < len(options):
        size = options[offset + 1] * OPTION_UNIT if offset + 1 < len(options) else 0
        if size == 0 or offset + size > len(options):
            raise DecodeError("neighbour discovery option cut short")
        if options[offset] in (_SOURCE_LINK_ADDRESS, _TARGET_LINK_ADDRESS):
            found.append(options[offset + 2 : offset + size])
        offset += size
    return tuple(found)


def build_neighbour_advertisement(solicitation: bytes, mac: bytes) -> bytes:
    """The frame that answers the neighbour solicitation in the frame `solicitation`: its target is at `mac`.

    A solicitation from the unspecified address (duplicate address detection) is answered to all nodes, unsolicited,
    as RFC 4861, section 7.2.4 asks. VLAN tags are kept.
    """
    asked = decode_neighbour(solicitation)
    if asked.type != NEIGHBOUR_SOLICITATION:
        raise DecodeError("an advertisement asks for nothing")
    _, offset = network_header(solicitation)
    tags = solicitation[12 : offset - 2]
    duplicate_check = asked.source == _UNSPECIFIED
    destination = _ALL_NODES if duplicate_check else asked.source
    destination_mac = b"\x33\x33" + _ALL_NODES.packed[12:] if duplicate_check else solicitation[6:12]
    flags = _OVERRIDE if duplicate_check else _SOLICITED | _OVERRIDE
    body = (
        struct.pack(">BBHI", NEIGHBOUR_ADVERTISEMENT, 0, 0, flags << 24)
        + asked.target.packed
        + bytes([_TARGET_LINK_ADDRESS, 1])
        + mac
    )
    header = (
        struct.pack(">IHBB", 6 << 28, len(body), PROTOCOL_ICMPV6, HOP_LIMIT) + asked.target.packed + destination.packed
    )
    checksum = internet_checksum(body, pseudo_header_sum(_whole(header, body)))
    packet = header + body[:2] + checksum.to_bytes(2, "big") + body[4:]
    return build_ethernet(destination_mac, mac, ETHERTYPE_IPV6, packet, tags)


def _whole(header: bytes, body: bytes) -> IpPacket:
    return decode_ip(header + body)
