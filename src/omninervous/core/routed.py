"""Between the Ethernet of `omni0` and the raw IP packets of a stock WireGuard peer (Layer 3)."""

from __future__ import annotations

from omninervous.errors import DecodeError
from omninervous.wire.frame import (
    ETHERNET_HEADER_SIZE,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    IpPacket,
    build_ethernet,
    decode_ip,
    network_header,
)

__all__ = ["frame_to_plaintext", "plaintext_to_frame"]

_PADDING = 16
"""WireGuard pads plaintexts with zeros to a multiple of 16 bytes (paper, section 5.4.6)."""
_ETHERTYPES = {4: ETHERTYPE_IPV4, 6: ETHERTYPE_IPV6}


def frame_to_plaintext(frame: bytes) -> tuple[bytes, bytes]:
    """`(destination address, padded plaintext)` of the IP packet in a frame; DecodeError if there is none untagged."""
    ethertype, offset = network_header(frame)
    packet = decode_ip(frame, offset)
    if offset != ETHERNET_HEADER_SIZE or ethertype != _ETHERTYPES[packet.version]:
        raise DecodeError("not an untagged IP packet")
    plaintext = frame[offset : packet.end]
    return packet.destination, plaintext + bytes(-len(plaintext) % _PADDING)


def plaintext_to_frame(plaintext: bytes, packet: IpPacket, own_mac: bytes, peer_mac: bytes) -> bytes:
    """The frame for the local stack; padding is cut off by the packet's own length."""
    return build_ethernet(own_mac, peer_mac, _ETHERTYPES[packet.version], plaintext[: packet.end])
