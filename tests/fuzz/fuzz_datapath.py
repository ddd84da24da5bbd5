"""Invariant: any underlay datagram and any TAP frame ends in output, event or a counted drop, never an exception.

A data path with live sessions of all three kinds of peer (member, stock WireGuard peer, Nucleus) is fed with mutated
datagrams, mutated frames from its own stack, and mutated *plaintexts* sealed with valid keys: what a hostile member
can send. What gets through to the stack must carry the member's MAC, be for us, and be no longer than allowed; after
every round an honest frame must still cross. Run: python -m tests.fuzz.fuzz_datapath --seconds 60 --seed 1
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from ipaddress import IPv4Network, IPv6Network

from omninervous.core.dataplane import InstallSession, Link, SelectSession, SetEndpoint, SetPeer
from omninervous.core.session import Session
from omninervous.synapse.datapath import MAX_FRAME, Datapath
from omninervous.wire.address import Endpoint
from omninervous.wire.frame import ARP_REQUEST, build_ethernet
from omninervous.wire.neighbour import NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION
from omninervous.wire.payload import Fragment
from tests.datapaths import (
    FAR_FUTURE,
    Side,
    arp_frame,
    discovery_frame,
    drops,
    icmpv6,
    ipv4,
    ipv6,
    neighbour_message,
    partial,
    tcp,
    twins,
    udp,
    udp_frame,
)
from tests.fuzz.command import main

INPUTS_PER_ROUND = 400
SOURCES = [Endpoint("192.0.2.2", 51820), Endpoint("203.0.113.5", 4444), Endpoint("2001:db8::5", 4444)]
TAG = bytes.fromhex("8100002a")
STOCK, NUCLEUS = b"\x51" * 32, b"\x52" * 32
STOCK_MAC = bytes([2, 0, 0, 0, 0, 0x51])


class Round:
    """Our data path and the keys of everybody it talks to."""

    def __init__(self, seed: str) -> None:
        self.dice = random.Random(seed)
        self.us, self.member = twins(self.dice.getrandbits(32), mtu=self.dice.choice((576, 1280, 1500, 9000)))
        self.datapath = self.us.datapath
        self.now = 1.0
        self.delivered = 0
        self.talkers = [self.member.hostile()]
        for number, (peer, link) in enumerate(((STOCK, Link.IP), (NUCLEUS, Link.SIGNALLING))):
            self.talkers.append(self.introduce(peer, link, 0x2000 + number))
        self.talkers[0].advance(0, 1 << 20)
        self.frames = sound_frames(self.member, self.us)
        self.local_frames = sound_frames(self.us, self.member)

    def introduce(self, peer: bytes, link: Link, index: int) -> Session:
        forth, back = self.dice.randbytes(32), self.dice.randbytes(32)
        networks = (IPv4Network("10.9.0.0/24"), IPv6Network("fd09::/64"))
        self.datapath.submit(
            0.0,
            [
                SetPeer(peer, link, STOCK_MAC, allowed_ips=networks),
                SetEndpoint(peer, SOURCES[1]),
                InstallSession(peer, index, index, forth, back, FAR_FUTURE),
                SelectSession(peer, index),
            ],
        )
        return Session(InstallSession(self.us.id, index, index, back, forth, FAR_FUTURE))

    def plaintext(self) -> bytes:
        """A payload that a session's owner might send, honest or not."""
        kind = self.dice.choice((1, 1, 1, 2, 3, 4, 5, 0x45, self.dice.randrange(256)))
        frame = self.mutate(self.dice.choice(self.frames))
        if kind == 3:
            data = (bytes([self.dice.choice((1, 2, 3, 4))]) + frame)[: self.dice.randrange(1, 2000)]
            offset = self.dice.choice((0, 0, len(data), self.dice.randrange(65536)))
            return self.mutate(Fragment(self.dice.randrange(12), offset, self.dice.random() < 0.5, data).encode())
        if kind == 0x45:
            return frame[14:]
        return bytes([kind]) + frame + bytes(self.dice.choice((0, 0, 0, 9300)))

    def mutate(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self.dice.choice((0, 1, 1, 2, 6))):
            position = self.dice.randrange(len(changed) or 1)
            match self.dice.randrange(6):
                case 0 | 1:
                    changed[position : position + 1] = self.dice.randbytes(1)
                case 2:
                    del changed[position : position + self.dice.randrange(1, 40)]
                case 3:
                    changed[position:position] = self.dice.randbytes(self.dice.randrange(1, 40))
                case 4:
                    changed[position:] = self.dice.choice(self.frames)[position:]
                case 5:
                    width = self.dice.choice((1, 2, 4, 16))
                    changed[position : position + width] = self.dice.choice((b"\0", b"\xff", b"\x86")) * width
        return bytes(changed)

    def step(self) -> str:
        """One input and the check of what became of it; says what it was."""
        self.now += self.dice.choice((0.0, 0.001, 0.5))
        before, rx_before = sum(drops(self.us).values()), self.datapath.counters()["rx_packets"]
        choice = self.dice.randrange(4)
        if choice == 0:
            self.datapath.from_tap(self.now, self.mutate(self.dice.choice(self.local_frames)))
        else:
            datagram = self.mutate(b"\x04\0\0\0" + self.dice.randbytes(60)) if choice == 1 else self.sealed()
            if choice == 3:
                datagram = self.mutate(datagram)
            self.datapath.from_underlay(self.now, self.dice.choice(SOURCES), datagram)
        output = self.datapath.take()
        counted = sum(drops(self.us).values()) - before
        authentic = self.datapath.counters()["rx_packets"] > rx_before  # a keepalive, or a fragment that waits
        assert output.datagrams or output.frames or output.events or counted or authentic, "vanished"
        self.delivered += len(output.frames)
        for frame in output.frames:
            assert frame[6:12] in (self.member.mac, STOCK_MAC), "foreign source"
            assert frame[0] & 1 or frame[:6] == self.us.mac, "not for us"
            assert 14 <= len(frame) <= MAX_FRAME, "length"
        self.expire(self.datapath)
        return ("tap frame", "noise", "sealed by a peer", "sealed and damaged")[choice]

    def sealed(self) -> bytes:
        talker = self.talkers[0] if self.dice.random() < 0.7 else self.dice.choice(self.talkers)
        return talker.seal(self.plaintext())

    def expire(self, datapath: Datapath) -> None:
        deadline = datapath.next_deadline()
        if deadline is not None and deadline <= self.now:
            datapath.handle_timeout(self.now)

    def check_that_all_still_works(self) -> None:
        for sender, receiver, frames in (
            (self.us, self.member, self.local_frames),
            (self.member, self.us, self.frames),
        ):
            if sender is self.member:
                sender.datapath._table.sessions[sender.index].session.advance(0, 1 << 21)
            frame = frames[0]
            sender.datapath.from_tap(self.now, frame)
            for _, data in sender.datapath.take().datagrams:
                receiver.datapath.from_underlay(self.now, sender.endpoint, data)
            assert receiver.datapath.take().frames == [frame]


def sound_frames(one: Side, two: Side) -> list[bytes]:
    """What `one` may send to `two`."""
    solicitation = neighbour_message(NEIGHBOUR_SOLICITATION, two.ula, one.mac)
    advertisement = neighbour_message(NEIGHBOUR_ADVERTISEMENT, one.ula, one.mac)
    over_tcp = build_ethernet(two.mac, one.mac, 0x0800, ipv4(one.vip, two.vip, tcp(b"data" * 50), 6))
    extended = ipv6(one.ula, two.ula, b"\x2c\0" + bytes(6) + b"\x3a\0" + bytes(6) + b"\x80" + bytes(11), 0)
    return [
        udp_frame(one, two, b"honest" * 9),
        udp_frame(one, two, bytes(1338)),
        udp_frame(one, two, bytes(4000)),
        udp_frame(one, two, b"tagged", TAG),
        udp_frame(one, two, b"twice", TAG * 2),
        over_tcp,
        partial(over_tcp),
        partial(build_ethernet(two.mac, one.mac, 0x86DD, ipv6(one.ula, two.ula, udp(b"x" * 77)))),
        build_ethernet(two.mac, one.mac, 0x86DD, extended),
        build_ethernet(two.mac, one.mac, 0x86DD, icmpv6(one.link_local, two.ula, b"\x86" + bytes(15))),
        arp_frame(ARP_REQUEST, (one.mac, one.vip), (bytes(6), two.vip)),
        arp_frame(2, (one.mac, one.vip), (two.mac, two.vip), two.mac),
        discovery_frame(one.mac, solicitation, one.ula, two.ula),
        discovery_frame(one.mac, advertisement, one.ula, two.ula, two.mac),
        build_ethernet(two.mac, one.mac, 0x88B5, b"raw"),
        build_ethernet(STOCK_MAC, one.mac, 0x0800, ipv4(one.vip, IPv4Network("10.9.0.0/24")[7], udp(b"routed"))),
        build_ethernet(two.mac, one.mac, 0x0800, ipv4(IPv4Network("10.9.0.0/24")[7], two.vip, udp(b"routed"))),
    ]


def run(seconds: float, seed: int) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while not outcomes or time.monotonic() < end:
        current = Round(f"{seed}/{outcomes['rounds']}")
        try:
            for _ in range(INPUTS_PER_ROUND):
                outcomes[current.step()] += 1
            current.check_that_all_still_works()
        except BaseException:
            print(f"seed {seed}, round {outcomes['rounds']}", file=sys.stderr)
            raise
        outcomes["rounds"] += 1
        for reason, count in drops(current.us).items():
            outcomes[f"drop_{reason}"] += count
        outcomes["delivered"] += current.delivered
    return outcomes


if __name__ == "__main__":
    main(run, __doc__)
