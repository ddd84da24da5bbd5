"""Virtio headers as a kernel makes and reads them: what a TAP gives in place of segments, and what becomes of a write.

Written from the kernel's rules (virtio 1.2, section 5.1.6; net/ipv4/tcp_offload.c), not from the engine's code: the
tests hold the engine's splitting and merging against it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from omninervous.wire.frame import (
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    IpPacket,
    decode_ip,
    internet_checksum,
    network_header,
    pseudo_header_sum,
)

__all__ = ["PLAIN", "Vnet", "begun", "kernel_segments", "written"]

NEEDS_CSUM = 1
GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP = 0, 1, 4, 5
FIN, PSH, CWR = 0x01, 0x08, 0x80
_HEADER = struct.Struct("<BBHHHH")
_CHECKSUM_AT = {PROTOCOL_TCP: 16, PROTOCOL_UDP: 6}


@dataclass(frozen=True, slots=True)
class Vnet:
    """`struct virtio_net_hdr`."""

    flags: int = 0
    gso: int = GSO_NONE
    header_size: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    def encode(self) -> bytes:
        return _HEADER.pack(self.flags, self.gso, self.header_size, self.gso_size, self.csum_start, self.csum_offset)

    @classmethod
    def decode(cls, data: bytes) -> Vnet:
        return cls(*_HEADER.unpack(data))


PLAIN = Vnet().encode()


def begun(frame: bytes, gso_size: int = 0) -> tuple[bytes, bytes]:
    """`(virtio header, frame)` of a TCP or UDP frame as the stack hands it to a TAP with offloads: the checksum holds
    the pseudo-header's sum. `gso_size`: cut the payload into so many bytes; 0: one frame."""
    packet = _packet(frame)
    at = packet.upper_offset + _CHECKSUM_AT[packet.protocol]
    frame = frame[:at] + pseudo_header_sum(packet).to_bytes(2, "big") + frame[at + 2 :]
    kind = GSO_NONE
    if gso_size:
        kind = GSO_UDP if packet.protocol == PROTOCOL_UDP else GSO_TCPV4 if packet.version == 4 else GSO_TCPV6
    header = Vnet(NEEDS_CSUM, kind, _payload_at(frame, packet), gso_size, packet.upper_offset, at - packet.upper_offset)
    return header.encode(), frame


def kernel_segments(header: bytes, frame: bytes) -> list[bytes]:
    """The frames with whole checksums that a kernel's software segmentation makes of a TAP's super-frame."""
    vnet = Vnet.decode(header)
    packet = _packet(frame)
    start = _payload_at(frame, packet)
    pieces = [frame[at : min(at + vnet.gso_size, packet.end)] for at in range(start, packet.end, vnet.gso_size)]
    return [
        _segment(frame, packet, start, number, piece, number * vnet.gso_size, number == len(pieces) - 1)
        for number, piece in enumerate(pieces)
    ]


def written(header: bytes, frame: bytes) -> list[bytes]:
    """The frames that a write to the TAP stands for, with whole checksums. Asserts that the header is one that the
    kernel accepts."""
    vnet = Vnet.decode(header)
    assert vnet.flags in (0, NEEDS_CSUM)
    if vnet.gso == GSO_NONE:
        return [_complete(frame, vnet) if vnet.flags else frame]
    packet = _packet(frame)
    assert vnet.flags == NEEDS_CSUM, "a super-frame without begun checksum"
    assert (vnet.gso, packet.protocol) == (GSO_TCPV4 if packet.version == 4 else GSO_TCPV6, PROTOCOL_TCP)
    assert vnet.csum_start == packet.upper_offset
    assert vnet.csum_offset == _CHECKSUM_AT[PROTOCOL_TCP]
    assert vnet.header_size == _payload_at(frame, packet)
    assert 0 < vnet.gso_size < packet.end - vnet.header_size
    assert packet.end == len(frame)
    network = network_header(frame)[1]
    assert packet.end - network < 1 << 16
    assert packet.version == 6 or internet_checksum(frame[network : packet.upper_offset]) == 0
    at = vnet.csum_start + vnet.csum_offset
    assert int.from_bytes(frame[at : at + 2], "big") == pseudo_header_sum(packet)
    return kernel_segments(header, frame)


def _complete(frame: bytes, vnet: Vnet) -> bytes:
    """As skb_checksum_help, but 0 stays 0 in TCP, where both zeros are valid."""
    assert vnet.csum_start + vnet.csum_offset + 2 <= len(frame)
    at = vnet.csum_start + vnet.csum_offset
    checksum = internet_checksum(frame[vnet.csum_start :])
    if vnet.csum_offset == _CHECKSUM_AT[PROTOCOL_UDP] and checksum == 0:
        checksum = 0xFFFF
    return frame[:at] + checksum.to_bytes(2, "big") + frame[at + 2 :]


def _packet(frame: bytes) -> IpPacket:
    return decode_ip(frame, network_header(frame)[1])


def _payload_at(frame: bytes, packet: IpPacket) -> int:
    if packet.protocol == PROTOCOL_UDP:
        return packet.upper_offset + 8
    return packet.upper_offset + (frame[packet.upper_offset + 12] >> 4) * 4


def _segment(frame: bytes, packet: IpPacket, start: int, number: int, piece: bytes, offset: int, last: bool) -> bytes:
    network, upper = network_header(frame)[1], packet.upper_offset
    out = bytearray(frame[:start] + piece)
    if packet.version == 4:
        identification = (int.from_bytes(out[network + 4 : network + 6], "big") + number) & 0xFFFF
        out[network + 2 : network + 6] = struct.pack(">HH", len(out) - network, identification)
        out[network + 10 : network + 12] = bytes(2)
        out[network + 10 : network + 12] = internet_checksum(bytes(out[network:upper])).to_bytes(2, "big")
    else:
        out[network + 4 : network + 6] = (len(out) - network - 40).to_bytes(2, "big")
    if packet.protocol == PROTOCOL_TCP:
        sequence = (int.from_bytes(out[upper + 4 : upper + 8], "big") + offset) & 0xFFFFFFFF
        out[upper + 4 : upper + 8] = sequence.to_bytes(4, "big")
        out[upper + 13] &= 0xFF if last else ~(FIN | PSH) & 0xFF
        out[upper + 13] &= 0xFF if number == 0 else ~CWR & 0xFF
    else:
        out[upper + 4 : upper + 6] = (len(out) - upper).to_bytes(2, "big")
    at = upper + _CHECKSUM_AT[packet.protocol]
    out[at : at + 2] = bytes(2)
    sum_ = pseudo_header_sum(_packet(bytes(out)))
    checksum = internet_checksum(bytes(out[upper:]), sum_)
    out[at : at + 2] = (0xFFFF if checksum == 0 and packet.protocol == PROTOCOL_UDP else checksum).to_bytes(2, "big")
    return bytes(out)
