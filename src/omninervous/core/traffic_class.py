"""DSCP and ECN between a frame's IP header and the datagram around it.

Outward the whole traffic class (IPv4: TOS) of the inner packet is copied (RFC 2983, uniform model; RFC 6040, normal
mode), so that the network between two edges can treat voice as voice and mark congestion instead of dropping. Inward
only ECN is taken over, by the table of RFC 6040, figure 4::

    inner \\ outer   Not-ECT    ECT(0)     ECT(1)     CE
    Not-ECT         Not-ECT    Not-ECT    Not-ECT    dropped
    ECT(0)          ECT(0)     ECT(0)     ECT(1)     CE
    ECT(1)          ECT(1)     ECT(1)     ECT(1)     CE
    CE              CE         CE         CE         CE

The outer field is not authenticated: whoever can change it could drop the datagram as well.
"""

from __future__ import annotations

from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.frame import ETHERTYPE_IPV4, ETHERTYPE_IPV6, network_header

__all__ = ["CE", "ECN", "frame_traffic_class", "mark_frame", "mark_packet"]

CE = 0b11
"""Congestion experienced."""
ECN = 0b11
"""The ECN field's bits in a traffic class."""
_VERSIONS = {ETHERTYPE_IPV4: 4, ETHERTYPE_IPV6: 6}
_UNTAGGED_IPV4 = b"\x08\x00\x45"


def frame_traffic_class(frame: bytes) -> int:
    """The traffic class of a frame's IP packet, 0 where there is none."""
    if frame[12:15] == _UNTAGGED_IPV4 and len(frame) > 15:
        return frame[15]
    start = _ip_header(frame)
    return 0 if start is None else _class_of(frame, start)


def mark_frame(frame: bytes, outer: int) -> bytes:
    """The frame with what the datagram's ECN field says about its way. RemoteError `ecn`: it must be dropped."""
    if not outer & 1:
        return frame  # Not-ECT and ECT(0) say nothing
    start = _ip_header(frame)
    return frame if start is None else frame[:start] + mark_packet(frame[start:], outer)


def mark_packet(packet: bytes, outer: int) -> bytes:
    """The same for an IP packet of two bytes at least."""
    whole = _class_of(packet, 0)
    inner = whole & ECN
    if not outer & 1 or inner == CE:
        return packet
    if inner == 0:
        if outer & ECN == CE:
            raise RemoteError("ecn", "congestion on the way, and no ECN-capable transport inside")
        return packet
    return _with_class(packet, whole & ~ECN | outer & ECN)


def _ip_header(frame: bytes) -> int | None:
    """Where the IP header starts that the ethertype names, if it is there."""
    try:
        ethertype, start = network_header(frame)
    except DecodeError:
        return None
    version = _VERSIONS.get(ethertype)
    if version is None or len(frame) < start + 2 or frame[start] >> 4 != version:
        return None
    return start


def _class_of(data: bytes, start: int) -> int:
    first, second = data[start], data[start + 1]
    return second if first >> 4 == 4 else (first << 4 | second >> 4) & 0xFF


def _with_class(packet: bytes, value: int) -> bytes:
    if packet[0] >> 4 == 6:
        return bytes([packet[0] & 0xF0 | value >> 4, (value << 4 | packet[1] & 0x0F) & 0xFF]) + packet[2:]
    if len(packet) < 12:
        return packet[:1] + bytes([value]) + packet[2:]
    # RFC 1624, equation 3: a wrong checksum stays as wrong as it was.
    total = (~int.from_bytes(packet[10:12], "big") & 0xFFFF) + (~packet[1] & 0xFFFF) + value
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return packet[:1] + bytes([value]) + packet[2:10] + (~total & 0xFFFF).to_bytes(2, "big") + packet[12:]
