"""TCP and UDP traffic for the offloads: whole frames, the streams of a sender, and what of a flow must arrive."""

from __future__ import annotations

import random
import struct
from collections import defaultdict

from omninervous.errors import DecodeError
from omninervous.wire.frame import decode_ip, internet_checksum, network_header, pseudo_header_sum
from tests.datapaths import Side
from tests.differential.engines import Native, Submit
from tests.differential.vnet import begun

__all__ = ["ACK", "CWR", "ECE", "FIN", "PSH", "TAG", "TCP", "UDP", "Stream", "by_flow", "content", "native", "packet"]

TCP, UDP = 6, 17
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in (0, 1, 2, 3, 4, 5, 6, 7))
TAG = bytes.fromhex("8100002a")


def native(own: Side, other: Side, mtu: int) -> Native:
    """A native engine in the place of `own`'s data path."""
    engine = Native(own.mac, random.Random(0).randbytes)
    engine.apply(0.0, Submit(tuple(own.introduce(other, mtu=mtu))))
    return engine


def packet(
    source: Side,
    destination: Side,
    payload: bytes,
    *,
    v6: bool = False,
    tags: bytes = b"",
    protocol: int = TCP,
    ports: tuple[int, int] = (4000, 5000),
    sequence: int = 1000,
    acknowledged: int = 7,
    flags: int = ACK,
    window: int = 512,
    options: bytes = b"",
    identification: int = 7,
    fragment: int = 0x4000,
    tos: int = 0,
    ttl: int = 64,
    extension: bytes = b"",
) -> bytes:
    """A TCP or UDP frame with whole checksums."""
    if protocol == TCP:
        offset = 5 + len(options) // 4
        upper = struct.pack(">HHIIBBHHH", *ports, sequence, acknowledged, offset << 4, flags, window, 0, 0) + options
    else:
        upper = struct.pack(">HHHH", *ports, 8 + len(payload), 0)
    upper += payload
    if v6:
        first = 60 if extension else protocol
        start = struct.pack(">IHBB", (6 << 28) + (tos << 20), len(extension) + len(upper), first, ttl)
        header = start + source.ula.packed + destination.ula.packed + extension
    else:
        total = 20 + len(upper)
        start = struct.pack(">BBHHHBBH", 0x45, tos, total, identification, fragment, ttl, protocol, 0)
        header = start + source.vip.packed + destination.vip.packed
        header = header[:10] + internet_checksum(header).to_bytes(2, "big") + header[12:]
    ethertype = b"\x86\xdd" if v6 else b"\x08\x00"
    network = destination.mac + source.mac + tags + ethertype
    if fragment & 0x3FFF and not v6:
        return network + header + upper
    parsed = decode_ip(header + upper)
    checksum = internet_checksum(upper, pseudo_header_sum(parsed))
    if protocol == UDP and checksum == 0:
        checksum = 0xFFFF
    at = 16 if protocol == TCP else 6
    return network + header + upper[:at] + checksum.to_bytes(2, "big") + upper[at + 2 :]


def content(dice: random.Random, size: int) -> bytes:
    return random.Random(dice.randrange(1 << 16)).randbytes(size)


Flow = tuple[object, ...]


def by_flow(frames: list[bytes]) -> dict[Flow, list[bytes]]:
    """Frames of each TCP or UDP flow in order, and all others. Identification means nothing where DF is set
    (RFC 6864), so there it is blanked: the kernel numbers the segments of a super-frame anew."""
    flows: dict[Flow, list[bytes]] = defaultdict(list)
    for frame in frames:
        try:
            start = network_header(frame)[1]
            found = decode_ip(frame, start)
        except DecodeError:
            flows["other",].append(frame)
            continue
        if found.protocol not in (TCP, UDP) or found.fragment:
            flows["other",].append(frame)
            continue
        ports = frame[found.upper_offset : found.upper_offset + 4]
        if found.version == 4 and frame[start + 6] & 0x40:
            shown = frame[: start + 4] + bytes(2) + frame[start + 6 : start + 10] + bytes(2) + frame[start + 12 :]
        else:
            shown = frame
        flows[found.source, found.destination, found.protocol, ports].append(shown)
    return dict(flows)


class Stream:
    """One direction of a TCP connection as its sender's stack cuts it, with everything that forbids to merge.
    `oddity`: 17 in so many frames are odd."""

    def __init__(self, dice: random.Random, source: Side, destination: Side, number: int, oddity: int = 50) -> None:
        self.dice, self.source, self.destination = dice, source, destination
        self.oddity = oddity
        self.ports = (4000, 5000 + number)
        self.v6 = dice.randrange(2) == 1
        self.tags = TAG * dice.choice((0, 0, 0, 1, 2))
        self.size = dice.choice((1, 100, 536, 1326))
        self.sequence = dice.choice((1000, (1 << 32) - 2000))
        self.identification = dice.choice((7, 0xFFFE))
        self.fragment = dice.choice((0x4000, 0x4000, 0))
        self.options = bytes(dice.choice((0, 12)))

    def whole(self, size: int) -> bytes:
        """A frame of so much payload, for the engine to cut."""
        return packet(self.source, self.destination, content(self.dice, size), v6=self.v6, tags=self.tags)

    def next(self) -> tuple[int, bytes]:
        """`(payload kind, frame)`."""
        dice = self.dice
        odd = dice.randrange(self.oddity)
        size = 0 if odd == 0 else self.size + 1 if odd == 1 else dice.randrange(self.size) if odd == 2 else self.size
        if odd == 3:
            self.sequence += dice.choice((-self.size, 1, self.size))
        if odd == 4:
            self.identification += 5
        frame = packet(
            self.source,
            self.destination,
            content(dice, size),
            v6=self.v6,
            tags=self.tags if odd != 5 else TAG,
            ports=self.ports,
            sequence=self.sequence & 0xFFFFFFFF,
            acknowledged=7 if odd != 6 else 8,
            flags=ACK if odd != 7 else dice.choice((ACK | PSH, FIN | ACK, SYN, RST, ACK | URG, ACK | ECE, ACK | CWR)),
            window=512 if odd != 8 else 513,
            options=self.options if odd != 9 else b"\x01" * 12,
            identification=self.identification & 0xFFFF,
            fragment=self.fragment if odd != 10 else dice.choice((0x4000, 0, 0x2000, 0x8000)),
            tos=0 if odd != 11 else 3,
            ttl=64 if odd != 12 else 63,
            extension=bytes([TCP, 0]) + bytes(6) if odd == 13 and self.v6 else b"",
            protocol=TCP if odd != 14 else UDP,
        )
        self.sequence += size
        self.identification += 1
        if odd == 15:
            return 1, frame + bytes(dice.choice((1, 6)))
        if odd == 16:
            at = dice.randrange(12, len(frame))
            return dice.choice((1, 2)), frame[:at] + bytes([frame[at] ^ 1 << dice.randrange(8)]) + frame[at + 1 :]
        if dice.randrange(4) == 0 or odd == 10:
            return 1, frame
        return 2, begun(frame)[1]
