"""What was on the wire: tcpdump into a file, and a reader of our own for it.

The reader shares no code with the datapath: a mistake made in both would hide itself.
"""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from omninervous.errors import DecodeError
from omninervous.lab.namespaces import Lab, Namespace

__all__ = ["Capture", "Datagram", "Verdict", "examine", "frames_of", "udp_datagram"]

_GLOBAL_HEADER = 24
_RECORD_HEADER = 16
_MAGICS = (0xA1B2C3D4, 0xA1B23C4D)
"""Micro- and nanosecond time stamps."""
_ETHERNET = 1
_ETHERNET_HEADER = 14
_VLAN_TAGS = (b"\x81\x00", b"\x88\xa8")
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_UDP = 17
_QUIET_SECONDS = 0.1
"""Without growth of the file: tcpdump has caught up. What it has not read when it is ended is lost."""
_UDP_HEADER = 8


class Capture:
    """tcpdump at work on an interface. `stop` ends it; then `frames_of(path)` reads what it wrote."""

    def __init__(
        self,
        lab: Lab,
        where: Namespace,
        interface: str,
        name: str,
        *,
        packet_filter: str = "",
        frames: int = 0,
        snap: int = 2048,
    ) -> None:
        """Starts at once, and returns when tcpdump listens. `frames` ends it after so many (0 = no limit)."""
        self.path = lab.logs / f"{name}.pcap"
        limit = ["-c", str(frames)] if frames else []
        self._process = lab.start(
            where,
            f"tcpdump-{name}",
            # -Z root: a tcpdump that gave its rights away could not write into our directory.
            [
                "tcpdump",
                "-i",
                interface,
                "-w",
                str(self.path),
                "-s",
                str(snap),
                "-U",
                "--immediate-mode",
                "-n",
                "-Z",
                "root",
                *limit,
            ]
            + ([packet_filter] if packet_filter else []),
        )
        self._process.wait_for_output("listening on", 10.0)

    def stop(self) -> Path:
        """End the capture, once tcpdump has written what the kernel still held for it."""
        size = -1
        while size != (size := self.path.stat().st_size):
            time.sleep(_QUIET_SECONDS)
        self._process.stop()
        return self.path


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP datagram as it was on the wire."""

    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    source_port: int
    destination_port: int
    payload: bytes


@dataclass(slots=True)
class Verdict:
    """What `examine` found in captured frames."""

    frames: int = 0
    datagrams: int = 0
    first_bytes: Counter[int] = field(default_factory=Counter)
    """First payload byte of every UDP datagram; -1 for an empty one."""
    other_ip: int = 0
    """IP packets that are not whole UDP datagrams."""
    found: Counter[str] = field(default_factory=Counter)
    """Names of the patterns that occurred, with the number of frames."""


def frames_of(path: Path) -> Iterator[bytes]:
    """The Ethernet frames in a pcap file. DecodeError if it is not one; a last frame cut short is left out."""
    data = path.read_bytes()
    if len(data) < _GLOBAL_HEADER:
        raise DecodeError(f"{path} is not a pcap file")
    order = next((order for order in "<>" if struct.unpack_from(f"{order}I", data)[0] in _MAGICS), None)
    if order is None:
        raise DecodeError(f"{path} is not a pcap file")
    if struct.unpack_from(f"{order}I", data, 20)[0] & 0xFFFF != _ETHERNET:
        raise DecodeError(f"{path} does not hold Ethernet frames")
    offset = _GLOBAL_HEADER
    while offset + _RECORD_HEADER <= len(data):
        captured = struct.unpack_from(f"{order}I", data, offset + 8)[0]
        offset += _RECORD_HEADER
        if offset + captured > len(data):
            return
        yield data[offset : offset + captured]
        offset += captured


def examine(frames: Iterable[bytes], patterns: Sequence[tuple[str, bytes]]) -> Verdict:
    """Count the first bytes of UDP payloads, and look for patterns (name, bytes) anywhere in IP packets."""
    verdict = Verdict()
    for frame in frames:
        kind, start = _ethernet(frame)
        verdict.frames += 1
        if kind not in (_IPV4, _IPV6):
            continue
        datagram = udp_datagram(frame)
        if datagram is None:
            verdict.other_ip += 1
        else:
            verdict.datagrams += 1
            verdict.first_bytes[datagram.payload[0] if datagram.payload else -1] += 1
        for name, pattern in patterns:
            if frame.find(pattern, start) >= 0:
                verdict.found[name] += 1
    return verdict


def udp_datagram(frame: bytes) -> Datagram | None:
    """The UDP datagram in a frame; None if there is none, or only a fragment of one. The payload may be cut short."""
    kind, start = _ethernet(frame)
    packet = frame[start:]
    if kind == _IPV4 and len(packet) >= 20 and packet[9] == _UDP:
        fragment = struct.unpack_from("!H", packet, 6)[0] & 0x3FFF  # more fragments, offset
        transport, source, destination = packet[(packet[0] & 0x0F) * 4 :], packet[12:16], packet[16:20]
        if fragment or len(transport) < _UDP_HEADER:
            return None
        ends: tuple[IPv4Address | IPv6Address, ...] = (IPv4Address(source), IPv4Address(destination))
    elif kind == _IPV6 and len(packet) >= 40 + _UDP_HEADER and packet[6] == _UDP:
        transport = packet[40:]
        ends = (IPv6Address(packet[8:24]), IPv6Address(packet[24:40]))
    else:
        return None
    source_port, destination_port, length = struct.unpack_from("!HHH", transport)
    return Datagram(ends[0], ends[1], source_port, destination_port, transport[_UDP_HEADER : max(length, _UDP_HEADER)])


def _ethernet(frame: bytes) -> tuple[bytes, int]:
    """Ethertype behind any VLAN tags, and where the packet begins."""
    start = _ETHERNET_HEADER
    while frame[start - 2 : start] in _VLAN_TAGS and len(frame) >= start + 4:
        start += 4
    return frame[start - 2 : start], start
