"""pcapng, the capture format of Wireshark (draft-ietf-opsawg-pcapng): one interface, Ethernet frames.

Every block here is whole: a file may end behind any of them.
"""

from __future__ import annotations

import struct

__all__ = ["INBOUND", "OUTBOUND", "file_header", "frame_block", "statistics_block"]

INBOUND, OUTBOUND = 1, 2
"""Of a frame, as this machine sees it (epb_flags)."""

_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_BYTE_ORDER = 0x1A2B3C4D
_LINKTYPE_ETHERNET = 1
_IF_NAME, _IF_TSRESOL = 2, 9
_EPB_FLAGS = 2
_ISB_IFRECV, _ISB_IFDROP = 4, 5
_SHB_USERAPPL = 4


def file_header(application: str, interface: str, snaplen: int) -> bytes:
    """What comes first. `snaplen`: bytes kept of a frame at most."""
    section = struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1) + _options((_SHB_USERAPPL, application.encode()))
    # Nanoseconds: 10^-9.
    options = _options((_IF_NAME, interface.encode()), (_IF_TSRESOL, b"\x09"))
    return _block(_SECTION, section) + _block(_INTERFACE, struct.pack("<HHI", _LINKTYPE_ETHERNET, 0, snaplen) + options)


def frame_block(nanoseconds: int, frame: bytes, length: int, direction: int) -> bytes:
    """A frame, perhaps cut; `length`: what it had. `nanoseconds`: since 1970."""
    head = struct.pack("<5I", 0, nanoseconds >> 32, nanoseconds & 0xFFFFFFFF, len(frame), length)
    return _block(_PACKET, head + _padded(frame) + _options((_EPB_FLAGS, struct.pack("<I", direction))))


def statistics_block(nanoseconds: int, received: int, dropped: int) -> bytes:
    """How many frames there were, those included that were dropped because nobody took them in time."""
    head = struct.pack("<3I", 0, nanoseconds >> 32, nanoseconds & 0xFFFFFFFF)
    counts = _options((_ISB_IFRECV, struct.pack("<Q", received)), (_ISB_IFDROP, struct.pack("<Q", dropped)))
    return _block(_STATISTICS, head + counts)


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def _options(*options: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options)
    return body + bytes(4)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
