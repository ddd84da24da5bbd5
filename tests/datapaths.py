"""Two edges' data planes with a session between them, and frames for them to carry. Shared by tests of all kinds."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from omninervous.core.dataplane import (
    Command,
    InstallSession,
    Link,
    SelectSession,
    SetEndpoint,
    SetFlood,
    SetPeer,
)
from omninervous.core.session import Session
from omninervous.synapse.datapath import Datapath, Output
from omninervous.wire.address import Endpoint
from omninervous.wire.frame import (
    BROADCAST_MAC,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    PROTOCOL_ICMPV6,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    ArpPacket,
    build_ethernet,
    decode_ip,
    eui64_link_local,
    internet_checksum,
    pseudo_header_sum,
)

FAR_FUTURE = 1e9
Address = IPv4Address | IPv6Address


@dataclass(slots=True)
class Side:
    """One edge: who it is, and how its session reaches the other one."""

    number: int
    datapath: Datapath
    send_key: bytes
    recv_key: bytes
    taken: Output = field(default_factory=lambda: Output([], [], [], {}))

    @property
    def mac(self) -> bytes:
        return bytes([0x02, 0, 0, 0, 0, self.number])

    @property
    def vip(self) -> IPv4Address:
        return IPv4Address(f"10.200.0.{self.number}")

    @property
    def ula(self) -> IPv6Address:
        return IPv6Address(f"fd6f:6d6e:6900::{self.number}")

    @property
    def link_local(self) -> IPv6Address:
        return eui64_link_local(self.mac)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(f"192.0.2.{self.number}", 51820)

    @property
    def id(self) -> bytes:
        return bytes([self.number]) * 32

    @property
    def index(self) -> int:
        return 0x1000 + self.number

    def introduce(self, other: Side, *, mtu: int = 1500, link: Link = Link.ETHERNET) -> list[Command]:
        """What a core submits once `other` is a proven member with a session."""
        return [
            SetPeer(other.id, link, other.mac, (other.vip, other.ula), mtu=mtu),
            SetEndpoint(other.id, other.endpoint),
            InstallSession(other.id, self.index, other.index, self.send_key, self.recv_key, FAR_FUTURE),
            SelectSession(other.id, self.index),
            SetFlood((other.id,)),
        ]

    def hostile(self) -> Session:
        """A copy of this side's session: seals what an honest data path never would."""
        return Session(
            InstallSession(self.id, self.index, 0x1003 - self.number, self.send_key, self.recv_key, FAR_FUTURE)
        )

    def take(self) -> Output:
        self.taken = self.datapath.take()
        return self.taken


def twins(seed: int = 0, *, mtu: int = 1500, introduced: bool = True) -> tuple[Side, Side]:
    """Edges 1 and 2, each knowing the other as a member with a session."""
    dice = random.Random(seed)
    forth, back = dice.randbytes(32), dice.randbytes(32)
    one = Side(1, Datapath(bytes([2, 0, 0, 0, 0, 1]), dice.randbytes), forth, back)
    two = Side(2, Datapath(bytes([2, 0, 0, 0, 0, 2]), dice.randbytes), back, forth)
    if introduced:
        one.datapath.submit(0.0, one.introduce(two, mtu=mtu))
        two.datapath.submit(0.0, two.introduce(one, mtu=mtu))
    return one, two


def carry(sender: Side, receiver: Side, frames: Iterable[bytes], now: float = 1.0) -> list[bytes]:
    """Frames from the sender's stack; what the receiver's stack gets. The other output is in `taken`."""
    for frame in frames:
        sender.datapath.from_tap(now, frame)
    for endpoint, data in sender.take().datagrams:
        assert endpoint == receiver.endpoint
        receiver.datapath.from_underlay(now, sender.endpoint, data)
    return receiver.take().frames


def drops(side: Side) -> dict[str, int]:
    """Drop counters by reason."""
    counters = side.datapath.counters()
    return {name.removeprefix("drop_"): count for name, count in counters.items() if name.startswith("drop_")}


# ---------------------------------------------------------------- frames


def ipv4(source: IPv4Address, destination: IPv4Address, payload: bytes, protocol: int = PROTOCOL_UDP) -> bytes:
    """An IPv4 packet without options."""
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 7, 0x4000, 64, protocol, 0)
    header += source.packed + destination.packed
    return header[:10] + internet_checksum(header).to_bytes(2, "big") + header[12:] + payload


def ipv6(source: IPv6Address, destination: IPv6Address, payload: bytes, protocol: int = PROTOCOL_UDP) -> bytes:
    """An IPv6 packet; extension headers stand at the front of `payload`."""
    return struct.pack(">IHBB", 6 << 28, len(payload), protocol, 255) + source.packed + destination.packed + payload


def udp(data: bytes) -> bytes:
    """A UDP datagram without checksum."""
    return struct.pack(">HHHH", 4000, 5000, 8 + len(data), 0) + data


def tcp(data: bytes) -> bytes:
    """A TCP segment with an empty checksum field."""
    return struct.pack(">HHIIBBHHH", 4000, 5000, 1, 2, 0x50, 0x10, 512, 0, 0) + data


def icmpv6(source: IPv6Address, destination: IPv6Address, message: bytes) -> bytes:
    """An IPv6 packet with an ICMPv6 message, checksum filled in."""
    packet = ipv6(source, destination, message, PROTOCOL_ICMPV6)
    checksum = internet_checksum(message, pseudo_header_sum(decode_ip(packet)))
    return packet[:42] + checksum.to_bytes(2, "big") + packet[44:]


def udp_frame(source: Side, destination: Side, data: bytes = b"hello", tags: bytes = b"") -> bytes:
    """What the stack of `source` sends to `destination` over IPv4."""
    packet = ipv4(source.vip, destination.vip, udp(data))
    return build_ethernet(destination.mac, source.mac, ETHERTYPE_IPV4, packet, tags)


def arp_frame(
    operation: int, sender: tuple[bytes, Address], target: tuple[bytes, Address], destination: bytes = BROADCAST_MAC
) -> bytes:
    """An ARP frame; its Ethernet source is the ARP sender."""
    (sender_mac, sender_ip), (target_mac, target_ip) = sender, target
    assert isinstance(sender_ip, IPv4Address)
    assert isinstance(target_ip, IPv4Address)
    body = ArpPacket(operation, sender_mac, sender_ip, target_mac, target_ip).encode()
    return build_ethernet(destination, sender_mac, ETHERTYPE_ARP, body)


def discovery_frame(
    mac: bytes,
    message: bytes,
    source: IPv6Address,
    destination: IPv6Address,
    destination_mac: bytes | None = None,
) -> bytes:
    """An ICMPv6 message in a frame, to the multicast MAC of its destination unless another is given."""
    to = destination_mac or b"\x33\x33" + destination.packed[12:]
    return build_ethernet(to, mac, ETHERTYPE_IPV6, icmpv6(source, destination, message))


def neighbour_message(kind: int, target: IPv6Address, link_address: bytes | None = None, flags: int = 0) -> bytes:
    """A neighbour solicitation (135) or advertisement (136), checksum empty."""
    option = b"" if link_address is None else bytes([kind - 134, 1]) + link_address
    return struct.pack(">BBHI", kind, 0, 0, flags << 24) + target.packed + option


def partial(frame: bytes, offset: int = 14) -> bytes:
    """A TCP or UDP frame as a kernel leaves it for its network card: pseudo-header sum in the checksum field."""
    packet = decode_ip(frame, offset)
    at = packet.upper_offset + {PROTOCOL_TCP: 16, PROTOCOL_UDP: 6}[packet.protocol]
    return frame[:at] + pseudo_header_sum(packet).to_bytes(2, "big") + frame[at + 2 :]
