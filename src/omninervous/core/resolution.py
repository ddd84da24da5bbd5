"""Address resolution in frames that the local stack sends: questions go to the core, announcements go nowhere.

Answers are synthesised from memberships (ARP is discovery here), so no question needs to be broadcast, and nothing
that we announce would be believed.
"""

from __future__ import annotations

from enum import Enum, auto

from omninervous.errors import DecodeError
from omninervous.wire.frame import ARP_REQUEST, ETHERTYPE_ARP, ETHERTYPE_IPV6, decode_arp, network_header
from omninervous.wire.neighbour import NEIGHBOUR_SOLICITATION, decode_neighbour

__all__ = ["Resolution", "classify_local"]

_NEXT_HEADER = 6
_NO_DISCOVERY = (b"\x06", b"\x11")
"""TCP or UDP right behind the IPv6 header: spares ordinary traffic the closer look."""


class Resolution(Enum):
    """What a frame has to do with address resolution."""

    NONE = auto()
    """Ordinary traffic, or an answer to one neighbour."""
    QUESTION = auto()
    """An ARP request or a neighbour solicitation."""
    ANNOUNCEMENT = auto()
    """Gratuitous ARP, or an answer to everybody."""


def classify_local(frame: bytes) -> Resolution:
    """What a frame of at least an Ethernet header is. What cannot be parsed is ordinary traffic."""
    to_many = bool(frame[0] & 1)
    try:
        ethertype, offset = network_header(frame)
        if ethertype == ETHERTYPE_ARP:
            arp = decode_arp(frame)
            question = arp.operation == ARP_REQUEST and not arp.gratuitous
            announcement = arp.gratuitous or to_many
        elif (
            ethertype == ETHERTYPE_IPV6
            and frame[offset + _NEXT_HEADER : offset + _NEXT_HEADER + 1] not in _NO_DISCOVERY
        ):
            question = decode_neighbour(frame).type == NEIGHBOUR_SOLICITATION
            announcement = to_many
        else:
            return Resolution.NONE
    except DecodeError:
        return Resolution.NONE
    if question:
        return Resolution.QUESTION
    return Resolution.ANNOUNCEMENT if announcement else Resolution.NONE
