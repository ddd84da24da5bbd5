"""Frames of every kind that a stack, or a hostile member, may make. All randomness is the caller's."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from omninervous.core.fragments import split
from omninervous.wire.frame import BROADCAST_MAC, eui64_link_local, internet_checksum
from tests.datapaths import icmpv6

__all__ = ["Frames", "Station"]

_MULTICAST = bytes.fromhex("333300000001")
_TPIDS = (b"\x81\x00", b"\x88\xa8")
_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_EXTENSIONS = (0, 43, 60, 51, 44)
_FLAGS = (0x10, 0x10, 0x18, 0x11, 0x02, 0x12, 0x04, 0x14, 0x30, 0x50, 0x90, 0xD0, 0xFF, 0x00)


@dataclass(frozen=True, slots=True)
class Station:
    """Who may stand in a frame."""

    mac: bytes
    ipv4: IPv4Address
    ipv6: IPv6Address

    @property
    def link_local(self) -> IPv6Address:
        return eui64_link_local(self.mac)


class Frames:
    """Makes frames. `stations`: those that are named most of the time."""

    def __init__(self, dice: random.Random, stations: list[Station]) -> None:
        self._dice = dice
        self._stations = stations

    def any(self, source: Station, destination: Station) -> bytes:
        """From `source` to `destination`, most of the time; about one in three lies somewhere."""
        dice = self._dice
        if dice.randrange(16) == 0:
            source = dice.choice(self._stations)
        to = dice.choice((destination.mac,) * 9 + (BROADCAST_MAC, _MULTICAST, dice.choice(self._stations).mac))
        tags = b"".join(
            dice.choice(_TPIDS) + dice.choice((b"\0\x2a", b"\xff\xff"))
            for _ in range(dice.choice((0, 0, 0, 0, 0, 0, 1, 1, 2, 3)))
        )
        claimed = source if dice.randrange(12) else dice.choice(self._stations)
        ethertype, body = dice.choice(
            (self._ipv4, self._ipv4, self._ipv6, self._ipv6, self._arp, self._discovery, self._other)
        )(claimed, destination)
        if dice.randrange(24) == 0:
            ethertype = dice.choice((0x0800, 0x86DD, 0x0806, 0x88B5, 0x05DC))
        return self._spoilt(to + source.mac + tags + ethertype.to_bytes(2, "big") + body)

    def content(self, size: int) -> bytes:
        """Bytes that cost the dice two numbers only."""
        return random.Random(self._dice.randrange(1 << 16)).randbytes(size)

    def _size(self) -> int:
        dice = self._dice
        return dice.choice((0, 1, 7, 40, dice.randrange(200), dice.randrange(1500), dice.randrange(9200)))

    def _spoilt(self, frame: bytes) -> bytes:
        dice = self._dice
        match dice.randrange(24):
            case 0:
                return frame[: dice.randrange(len(frame) + 1)]
            case 1:
                return frame + bytes(dice.choice((1, 18, 46, 9300)))
            case 2 | 3:
                changed = bytearray(frame)
                changed[dice.randrange(len(changed[:90]))] = dice.choice((0, 1, 0x45, 0x60, 0xFF, dice.randrange(256)))
                return bytes(changed)
            case _:
                return frame

    def _ipv4(self, source: Station, destination: Station) -> tuple[int, bytes]:
        dice = self._dice
        protocol = dice.choice((_TCP, _TCP, _UDP, _UDP, _ICMP, _ICMPV6, 47))
        options = self.content(4 * dice.choice((0, 0, 0, 1, 3, 10)))
        first, second = self._addresses4(source, destination)
        payload = self._upper(protocol, first.packed + second.packed)
        fragment = dice.choice((0, 0, 0, *(0x4000,) * 9, 0x2000, 0x0001, 0x2005, 0x8000))
        total = 20 + len(options) + len(payload)
        header = struct.pack(
            ">BBHHHBBH4s4s",
            0x45 + len(options) // 4,
            dice.choice((0, 0, 2, 1, 0xB8, 0x03)),
            min(total, 0xFFFF),
            dice.randrange(1 << 16),
            fragment,
            dice.choice((1, 64)),
            protocol,
            0,
            first.packed,
            second.packed,
        )
        checksum = internet_checksum(header + options) if dice.randrange(8) else 0xFFFF
        return 0x0800, header[:10] + checksum.to_bytes(2, "big") + header[12:] + options + payload

    def _ipv6(self, source: Station, destination: Station) -> tuple[int, bytes]:
        dice = self._dice
        upper = dice.choice((_TCP, _TCP, _UDP, _UDP, _ICMPV6, 59, _ICMP))
        first, second = self._addresses6(source, destination)
        payload = self._upper(upper, first.packed + second.packed)
        following = upper
        for _ in range(dice.choice((0, 0, 0, 0, 1, 2, 8, 9))):
            kind = dice.choice(_EXTENSIONS)
            if kind == 44:
                payload = bytes([following, 0]) + dice.choice((0, 0, 1, 8, 6)).to_bytes(2, "big") + bytes(4) + payload
            else:
                units = dice.choice((0, 0, 1))
                size = (units + 2) * 4 if kind == 51 else (units + 1) * 8
                payload = bytes([following, units]) + bytes(max(size, 8) - 2) + payload
            following = kind
        length = len(payload) if dice.randrange(10) else dice.randrange(1 << 11)
        start = (6 << 28) + dice.choice((0, 0, 0x12345, *((0xB8 + ecn) << 20 for ecn in range(4))))
        header = struct.pack(">IHBB", start, min(length, 0xFFFF), following, dice.choice((1, 64, 255)))
        return 0x86DD, header + first.packed + second.packed + payload

    def _upper(self, protocol: int, addresses: bytes) -> bytes:
        dice = self._dice
        data = self.content(self._size())
        if protocol == _ICMP:
            return bytes([dice.choice((8, 0, 5, 3)), 0, 0, 0]) + data
        if protocol == _ICMPV6:
            return bytes([dice.choice((128, 133, 134, 135, 136, 137)), 0, 0, 0]) + data
        if protocol not in (_TCP, _UDP):
            return data
        if protocol == _UDP:
            length = 8 + len(data) if dice.randrange(10) else dice.randrange(1 << 11)
            segment = struct.pack(">HHHH", 4000, dice.choice((5000, 5001)), min(length, 0xFFFF), 0) + data
        else:
            options = bytes(4 * dice.choice((0, 0, 3, 10)))
            offset = 5 + len(options) // 4 if dice.randrange(12) else dice.randrange(16)
            numbers = struct.pack(">HHII", 4000, dice.choice((5000, 5001)), dice.randrange(1 << 32), 7)
            segment = numbers + struct.pack(">BBHHH", offset << 4, dice.choice(_FLAGS), 512, 0, 0) + options + data
        at = 6 if protocol == _UDP else 16
        pseudo = addresses + bytes([0, protocol]) + len(segment).to_bytes(4, "big")
        begun = ~internet_checksum(pseudo) & 0xFFFF
        whole = internet_checksum(segment, begun)
        checksum = dice.choice((whole, whole, begun, begun, 0, 0xFFFF, 0x1234))
        return segment[:at] + checksum.to_bytes(2, "big") + segment[at + 2 :]

    def _arp(self, source: Station, destination: Station) -> tuple[int, bytes]:
        dice = self._dice
        sender_mac = dice.choice((source.mac, source.mac, source.mac, destination.mac))
        sender = dice.choice((source.ipv4, source.ipv4, destination.ipv4, IPv4Address(0)))
        target = dice.choice((destination.ipv4, destination.ipv4, source.ipv4))
        kind = bytes.fromhex("0001080006") + bytes([dice.choice((4, 4, 4, 4, 16))])
        operation = dice.choice((1, 1, 2, 2, 3)).to_bytes(2, "big")
        body = kind + operation + sender_mac + sender.packed + dice.choice((bytes(6), destination.mac)) + target.packed
        return 0x0806, body + bytes(dice.choice((0, 0, 18)))

    def _discovery(self, source: Station, destination: Station) -> tuple[int, bytes]:
        dice = self._dice
        kind = dice.choice((133, 134, 135, 135, 135, 136, 136, 136, 137))
        target = dice.choice((source.ipv6, source.link_local, destination.ipv6, IPv6Address("ff02::1")))
        options = b"".join(
            bytes([dice.choice((1, 2, 5)), dice.choice((1, 1, 1, 0, 2))]) + dice.choice((source.mac, destination.mac))
            for _ in range(dice.choice((0, 1, 1, 2)))
        )
        body = b"" if kind == 133 else target.packed
        message = bytes([kind, 0, 0, 0]) + bytes([dice.choice((0, 0x20, 0x60))]) + bytes(3) + body + options
        sender = dice.choice((source.ipv6, source.link_local, source.link_local, IPv6Address(0), destination.ipv6))
        return 0x86DD, icmpv6(sender, dice.choice((destination.ipv6, IPv6Address("ff02::1"))), message)

    def _other(self, source: Station, destination: Station) -> tuple[int, bytes]:
        del source, destination
        return self._dice.choice((0x88B5, 0x88CC, 0x05DC, 0x8847, 0, 0xFFFF)), self.content(self._size())

    def _addresses4(self, source: Station, destination: Station) -> tuple[IPv4Address, IPv4Address]:
        return self._dice.choice((source.ipv4,) * 5 + (IPv4Address(0),)), destination.ipv4

    def _addresses6(self, source: Station, destination: Station) -> tuple[IPv6Address, IPv6Address]:
        first = self._dice.choice((source.ipv6,) * 4 + (source.link_local, IPv6Address(0)))
        return first, destination.ipv6


def fragments(dice: random.Random, payload: bytes) -> list[bytes]:
    """Fragment payloads that carry a payload, perhaps doubled, damaged, out of order, or not all of them."""
    pieces = split(payload, dice.randrange(12), dice.choice((200, 500, 1400)))
    if dice.randrange(3) == 0:
        dice.shuffle(pieces)
    if dice.randrange(4) == 0:
        pieces.append(dice.choice(pieces))
    if dice.randrange(4) == 0:
        pieces.pop(dice.randrange(len(pieces)))
    if pieces and dice.randrange(6) == 0:
        at = dice.randrange(len(pieces))
        changed = bytearray(pieces[at])
        changed[dice.randrange(8)] ^= 1 << dice.randrange(8)
        pieces[at] = bytes(changed)
    return pieces
