"""Packets for single runs of the reflex lane's programs (BPF_PROG_TEST_RUN), and their verdicts."""

from __future__ import annotations

import ipaddress
import struct

from omninervous.wire.address import Endpoint
from omninervous.wire.frame import internet_checksum

__all__ = ["OTHER_ID", "OUR_KEY", "PORT", "TCX_DROP", "TCX_NEXT", "TCX_REDIRECT", "THEIR_ID", "THERE", "packet"]

PORT = 51820
TCX_NEXT, TCX_DROP, TCX_REDIRECT = 0xFFFFFFFF, 2, 7
OUR_KEY = b"\x02" * 32
THEIR_ID, OTHER_ID = b"\x03" * 32, b"\x04" * 32
THERE = Endpoint("192.0.2.1", 51820)
_UDP = 17


def packet(payload: bytes, *, tos: int = 0, port: int = PORT, source: Endpoint = THERE) -> bytes:
    """A datagram to one of this machine's loopback addresses."""
    address, length = ipaddress.ip_address(source.host), 8 + len(payload)
    udp = struct.pack(">HHHH", source.port, port, length, 0) + payload
    if address.version == 6:
        header = struct.pack(">IHBB", 6 << 28 | tos << 20, length, _UDP, 64) + address.packed + bytes(15) + b"\x01"
        return bytes(12) + b"\x86\xdd" + header + udp
    header = struct.pack(">BBHHHBBH", 0x45, tos, 20 + length, 0, 0x4000, 64, _UDP, 0)
    header += address.packed + bytes([127, 0, 0, 1])
    header = header[:10] + internet_checksum(header).to_bytes(2, "big") + header[12:]
    return bytes(12) + b"\x08\x00" + header + udp
