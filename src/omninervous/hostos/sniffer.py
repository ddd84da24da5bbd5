"""Frames of one neighbour on an interface, as the local stack sends and gets them (packet(7)).

The kernel filters, and holds what is not taken in time up to a bound; what is beyond is dropped from the copy and
counted. Traffic itself never waits.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from types import TracebackType
from typing import NamedTuple

from omninervous.errors import SystemFailure
from omninervous.hostos.pcapng import INBOUND, OUTBOUND

__all__ = ["SNAPLEN", "Sniffed", "Sniffer"]

SNAPLEN = 65_535 + 26
"""A super-frame with a tag."""

_BUFFER = 8 << 20
_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_AUXDATA = 263, 6, 8
_SO_ATTACH_FILTER, _SO_TIMESTAMPNS, _SO_RCVBUFFORCE = 26, 35, 33
_PACKET_OUTGOING = 4
_AUXDATA = struct.Struct("=IIIHHHH")
_VLAN_VALID, _TPID_VALID = 0x10, 0x40
_ETH_P_8021Q = 0x8100

# Classic BPF (linux/filter.h).
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE = 0x20, 0x28, 0x30
_IF_EQUAL, _IF_SET, _RETURN = 0x15, 0x45, 0x06
_PACKET_TYPE = 0xFFFFF000 + 4


class Sniffed(NamedTuple):
    """A frame, perhaps cut."""

    nanoseconds: int
    """Since 1970."""
    data: bytes
    length: int
    """What it had."""
    direction: int
    """pcapng.INBOUND or OUTBOUND."""


class Sniffer:
    """A packet socket. SystemFailure if it cannot be had."""

    def __init__(self, interface: str, mac: bytes, snaplen: int = SNAPLEN) -> None:
        self._received = self._dropped = 0
        self._snaplen = snaplen
        if not hasattr(socket, "AF_PACKET"):
            raise SystemFailure("frames can be captured on Linux only")
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except PermissionError as error:
            raise SystemFailure("capturing frames takes CAP_NET_RAW: run it as root") from error
        try:
            # First the filter, then the interface: nothing else gets in.
            program = _filter(mac, snaplen)
            code = ctypes.create_string_buffer(program, len(program))
            self._socket.setsockopt(
                socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(code))
            )
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            except PermissionError:  # without CAP_NET_ADMIN the usual buffer must do
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._socket.bind((interface, _ETH_P_ALL))
        except OSError as error:
            self._socket.close()
            raise SystemFailure(
                f"interface {interface} cannot be captured here: {error.strerror}; run omni where the daemon runs"
            ) from error

    def __enter__(self) -> Sniffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def take(self, seconds: float) -> Sniffed | None:
        """The next frame; None if there was none for so long. SystemFailure if the interface is gone, or down."""
        self._socket.settimeout(seconds)
        try:
            data, ancillary, _, address = self._socket.recvmsg(SNAPLEN, 256)
        except TimeoutError:
            return None
        except OSError as error:
            raise SystemFailure(f"the interface is gone: {error.strerror}") from error
        nanoseconds, length = 0, len(data)
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                whole, rest = struct.unpack("=qq", value)
                nanoseconds = whole * 1_000_000_000 + rest
            elif (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
                data, length = _with_tag(data, _AUXDATA.unpack(value))
        return Sniffed(
            nanoseconds, data[: self._snaplen], length, OUTBOUND if address[2] == _PACKET_OUTGOING else INBOUND
        )

    def statistics(self) -> tuple[int, int]:
        """Frames so far, and how many of them nobody took in time."""
        # Reading sets the kernel's counters to zero.
        received, dropped = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self._received += received
        self._dropped += dropped
        return self._received, self._dropped


def _with_tag(data: bytes, auxdata: tuple[int, ...]) -> tuple[bytes, int]:
    """The frame with its outer VLAN tag, which the kernel keeps beside it, and its length."""
    status, length, _, _, _, tci, protocol = auxdata
    if not status & _VLAN_VALID:
        return data, length
    tag = struct.pack(">HH", protocol if status & _TPID_VALID else _ETH_P_8021Q, tci)
    return data[:12] + tag + data[12:], length + len(tag)


def _filter(mac: bytes, snaplen: int) -> bytes:
    """What comes from the MAC, and what goes to it or to everybody."""
    high, low = struct.unpack(">IH", mac)
    program = (
        (_LOAD_WORD, 0, 0, 6),
        (_IF_EQUAL, 0, 2, high),
        (_LOAD_HALF, 0, 0, 10),
        (_IF_EQUAL, 8, 0, low),
        (_LOAD_BYTE, 0, 0, _PACKET_TYPE),
        (_IF_EQUAL, 0, 7, _PACKET_OUTGOING),
        (_LOAD_BYTE, 0, 0, 0),
        (_IF_SET, 4, 0, 1),  # a group address
        (_LOAD_WORD, 0, 0, 0),
        (_IF_EQUAL, 0, 3, high),
        (_LOAD_HALF, 0, 0, 4),
        (_IF_EQUAL, 0, 1, low),
        (_RETURN, 0, 0, snaplen),
        (_RETURN, 0, 0, 0),
    )
    return b"".join(struct.pack("=HBBI", *each) for each in program)
