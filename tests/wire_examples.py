"""One full and one small example of every message with fields, and the decoders of everything that `wire/` decodes."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from omninervous.wire.address import Endpoint
from omninervous.wire.control import (
    Caps,
    CapsAck,
    Close,
    CloseReason,
    PathChallenge,
    PathResponse,
    Versions,
    decode_control,
)
from omninervous.wire.hello import Hello, HelloReply, decode_hello, decode_hello_reply
from omninervous.wire.membership import (
    MembershipBody,
    SignedMembership,
    VipClaim,
    decode_membership,
    decode_vip_claim,
)
from omninervous.wire.signalling import (
    Heartbeat,
    HeartbeatAck,
    HeartbeatStatus,
    Leave,
    PeerEntry,
    PeerInfo,
    PeerStatus,
    Probe,
    QueryPeer,
    Register,
    RegisterAck,
    RegisterStatus,
    decode_peer_entry,
    decode_signalling,
)

__all__ = ["DECODERS", "EXAMPLES", "MEMBERSHIP", "Message"]


class Message(Protocol):
    """Everything that is encoded."""

    def encode(self) -> bytes: ...


Decoder = Callable[[bytes], Message | None]
DECODERS: dict[str, Decoder] = {
    "control": decode_control,
    "signalling": decode_signalling,
    "membership": decode_membership,
    "peer_entry": decode_peer_entry,
    "vip_claim": decode_vip_claim,
    "hello": decode_hello,
    "hello_reply": decode_hello_reply,
}

E4 = Endpoint("192.0.2.1", 51820)
E6 = Endpoint("2001:db8::1", 65535)
CLAIM = VipClaim(IPv4Address("10.200.0.1"), 13, 2)
BODY = MembershipBody(bytes(range(32)), 7, 1_000_000_000, 1_000_604_800, CLAIM, "robot-1")
SIGNED = SignedMembership(BODY, BODY.encode(), b"i" * 64, b"c" * 64)
UNNAMED = MembershipBody(b"k" * 32, 1, 0, 1, VipClaim(IPv4Address("10.200.0.2"), 24))
SMALL_SIGNED = SignedMembership(UNNAMED, UNNAMED.encode(), bytes(64), bytes(64))
MEMBERSHIP = SIGNED.encode()
ENTRY = PeerEntry(MEMBERSHIP, E4, (E6, E4))
SMALL_ENTRY = PeerEntry(SMALL_SIGNED.encode())
KEY = b"l" * 32
CURSOR = b"p" * 32
TOKEN = b"8 bytes!"
BOOT_ID = b"a random boot id"

EXAMPLES: list[tuple[Decoder, Message]] = [
    (decode_control, Caps(Versions(1, 3), BOOT_ID, 0x1E, 3, 0x1FF, 1380, TOKEN, MEMBERSHIP, CLAIM, b"e" * 32, 1 << 31)),
    (decode_control, Caps(Versions(1, 1), BOOT_ID, 2, 1, 1, 1280, TOKEN)),
    (decode_control, CapsAck(TOKEN)),
    (decode_control, PathChallenge(TOKEN)),
    (decode_control, PathChallenge(TOKEN, in_use=True)),
    (decode_control, PathChallenge(TOKEN, padding=40)),
    (decode_control, PathResponse(TOKEN)),
    (decode_control, PathResponse(TOKEN, E6)),
    (decode_control, Close(CloseReason.SHUTDOWN)),
    (decode_signalling, Register(1, "fleet-ü", KEY, MEMBERSHIP, BOOT_ID, Versions(1, 1), (E4, E6))),
    (decode_signalling, Register(2**32 - 1, "x", KEY, MEMBERSHIP, BOOT_ID, Versions(255, 255))),
    (decode_signalling, RegisterAck(1, RegisterStatus.OK, 2**64 - 1, 9, E6, (ENTRY, SMALL_ENTRY), CURSOR, ENTRY, 2)),
    (decode_signalling, RegisterAck(1, RegisterStatus.PENDING)),
    (decode_signalling, Heartbeat(3, 4, 5, CURSOR, (E4,), TOKEN)),
    (decode_signalling, Heartbeat(3, 0, 0)),
    (decode_signalling, Heartbeat(3, 0, 0, probe_at=E6)),
    (
        decode_signalling,
        HeartbeatAck(
            3, 4, 5, 6, HeartbeatStatus.VIP_LOST, E4, (ENTRY, SMALL_ENTRY), (KEY, KEY), True, CURSOR, ENTRY, True
        ),
    ),
    (decode_signalling, HeartbeatAck(3, 4, 5, 5)),
    (decode_signalling, HeartbeatAck(3, 0, 0, 0, HeartbeatStatus.UNKNOWN, E4, probed=True)),
    (decode_signalling, QueryPeer(6, address=IPv4Address("10.200.0.9"), punch=True)),
    (decode_signalling, QueryPeer(6, address=IPv6Address("fd6f:6d6e:6900::1"), ask_initiate=True)),
    (decode_signalling, QueryPeer(6, mac=b"\x02abcde", punch=True, ask_initiate=True)),
    (decode_signalling, QueryPeer(6, key=b"x" * 32)),
    (decode_signalling, PeerInfo(0, PeerStatus.FOUND, ENTRY, True, True)),
    (decode_signalling, PeerInfo(6, PeerStatus.NOT_FOUND)),
    (decode_signalling, Leave(7)),
    (decode_signalling, Probe(TOKEN)),
    (decode_peer_entry, ENTRY),
    (decode_peer_entry, SMALL_ENTRY),
    (decode_membership, SIGNED),
    (decode_membership, SMALL_SIGNED),
    (decode_vip_claim, CLAIM),
    (decode_hello, Hello(b"n" * 16)),
    (decode_hello_reply, HelloReply(b"n" * 16, b"k" * 32, Versions(1, 2))),
]
