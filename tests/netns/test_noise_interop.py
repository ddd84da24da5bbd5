"""Our handshake and sessions against the newest wireguard-go, a live process in a network namespace of its own.

    +------------------ namespace ------------------+
    | wireguard-go   UDP 127.0.0.1   our UDP socket |
    |  tun 10.9.0.1 <---------------> 10.9.0.2      |
    +-----------------------------------------------+

No daemon of ours runs: the test itself feeds datagrams to the pure core.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from omninervous.core.cookies import CookieChecker, MacGenerator, mac1_valid, with_macs
from omninervous.core.noise import ZERO_PSK, IncomingInitiation, Initiator, StaticKeys
from omninervous.core.session import Session
from omninervous.core.tai64n import Tai64nClock
from omninervous.lab.namespaces import Lab
from omninervous.lab.process import Process, poll_until
from omninervous.lab.wireguard import WireGuardGo, WireGuardPeer
from omninervous.wire.address import Endpoint
from omninervous.wire.handshake import MessageType, decode_cookie_reply

HOST, PORT = "127.0.0.1", 51820
THEIR_IP, OUR_IP = "10.9.0.1", "10.9.0.2"
ECHO_REPLY, ECHO_REQUEST = 0, 8
ANSWER_SECONDS = 5.0
SILENCE_SECONDS = 0.3
RETRY_SECONDS = 8.0
"""wireguard-go sends an initiation again after 5 s and up to a third of a second."""
FLOOD_MESSAGES = 3000
QUIET_SECONDS = 0.1
FLOOD_SECONDS = 0.05
"""wireguard-go takes one initiation of a peer per 20 ms."""


class Talk:
    """A wireguard-go with one peer, us, and the socket through which we talk to it."""

    def __init__(self, lab: Lab, psk: bytes) -> None:
        self.lab, self.psk = lab, psk
        self.machine = lab.namespace("peer")
        self.go = WireGuardGo(lab, self.machine, "wireguard-go", f"{THEIR_IP}/24", PORT)
        self.keys = StaticKeys(os.urandom(32))
        self.their_public = base64.b64decode(self.go.public_key)
        self.clock = Tai64nClock(None)
        self.macs = MacGenerator(self.their_public)
        self.index = itertools.count(1000)
        self.go.set_peer(self.as_peer())
        self.socket = self.open_socket()

    def as_peer(self, endpoint: str | None = None) -> WireGuardPeer:
        key, psk = (base64.b64encode(raw).decode() for raw in (self.keys.public, self.psk))
        return WireGuardPeer(key, f"{OUR_IP}/32", endpoint, psk)

    def open_socket(self) -> socket.socket:
        opened = self.machine.udp_socket(HOST)
        opened.connect((HOST, PORT))
        opened.settimeout(ANSWER_SECONDS)
        return opened

    def make_it_initiate(self) -> Process:
        """Tell it where we are, and give it something to send: it pings us."""
        host, port = self.socket.getsockname()
        self.go.set_peer(self.as_peer(f"{host}:{port}"))
        return self.lab.start(self.machine, "ping", ["ping", "-c", "1", "-W", "9", OUR_IP])

    def initiator(self, timestamp: bytes | None = None) -> Initiator:
        stamp = timestamp or self.clock.next(time.time())
        cookie = self.macs.cookie(time.monotonic())
        return Initiator.create(
            self.keys, self.their_public, self.psk, stamp, next(self.index), os.urandom, cookie=cookie
        )

    def handshake(self) -> Session:
        initiator = self.initiator()
        self.socket.send(initiator.message)
        return Session(initiator.finish(self.receive(MessageType.RESPONSE)).install(1e12))

    def receive(self, kind: MessageType) -> bytes:
        """The next datagram of this type; others are skipped."""
        while True:
            data = self.socket.recv(2000)
            if data[0] == kind:
                return data

    def receive_packet(self, session: Session) -> bytes:
        """The next IP packet that comes on the session, keepalives skipped."""
        while True:
            opened = session.open(0.0, self.receive(MessageType.TRANSPORT))
            if opened.payload:
                return opened.payload

    def is_silent(self) -> bool:
        self.socket.settimeout(SILENCE_SECONDS)
        try:
            self.receive(MessageType.RESPONSE)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(ANSWER_SECONDS)
        return False


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def echo(kind: int, body: bytes, source: str = OUR_IP, target: str = THEIR_IP) -> bytes:
    """An IPv4 packet with an ICMP echo; `body` is identifier, sequence, data. Padded to 16 as WireGuard does."""
    icmp = struct.pack("!BBH", kind, 0, 0) + body
    icmp = icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:]
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(icmp), 0, 0, 64, 1, 0)
    header += socket.inet_aton(source) + socket.inet_aton(target)
    packet = header[:10] + struct.pack("!H", checksum(header)) + header[12:] + icmp
    return packet + bytes(-len(packet) % 16)


def parse_echo(packet: bytes) -> tuple[int, bytes]:
    """Kind and body of an ICMP echo from the other side, its padding cut."""
    packet = packet[: struct.unpack("!H", packet[2:4])[0]]
    assert packet[0] == 0x45
    assert packet[9] == 1
    assert packet[12:20] == socket.inet_aton(THEIR_IP) + socket.inet_aton(OUR_IP)
    return packet[20], packet[24:]


def answer_ping(go: Talk, session: Session, ping: Process) -> None:
    kind, body = parse_echo(go.receive_packet(session))
    assert kind == ECHO_REQUEST
    go.socket.send(session.seal(echo(ECHO_REPLY, body)))
    assert poll_until(lambda: ping.status is not None, 10.0)
    assert ping.status == 0


def ping_it(go: Talk, session: Session, text: bytes) -> None:
    body = b"\0\x07\0\x01" + text
    go.socket.send(session.seal(echo(ECHO_REQUEST, body)))
    assert parse_echo(go.receive_packet(session)) == (ECHO_REPLY, body)


@pytest.fixture(params=["without_psk", "with_psk"])
def go(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Talk]:
    yield from talking(lab, ZERO_PSK if request.param == "without_psk" else os.urandom(32))


@pytest.fixture
def plain(lab: Lab) -> Iterator[Talk]:
    yield from talking(lab, ZERO_PSK)


def talking(lab: Lab, psk: bytes) -> Iterator[Talk]:
    talk = Talk(lab, psk)
    yield talk
    talk.socket.close()


def test_we_initiate_and_packets_cross_both_ways(go: Talk) -> None:
    session = go.handshake()
    go.socket.send(session.seal(b""))
    ping_it(go, session, b"from us.")
    answer_ping(go, session, go.make_it_initiate())


def test_it_initiates_and_packets_cross_both_ways(go: Talk) -> None:
    ping = go.make_it_initiate()
    incoming = IncomingInitiation.open(go.keys, go.receive(MessageType.INITIATION))
    assert incoming.remote_static == go.their_public
    response, transport = incoming.respond(go.psk, 77, os.urandom)
    go.socket.send(response)
    session = Session(transport.install(1e12))
    answer_ping(go, session, ping)
    ping_it(go, session, b"from us.")


def test_a_rekey_leaves_the_old_session_open_for_stragglers(plain: Talk) -> None:
    first = plain.handshake()
    ping_it(plain, first, b"first...")
    time.sleep(FLOOD_SECONDS)
    second = plain.handshake()
    ping_it(plain, second, b"second..")
    plain.socket.send(first.seal(echo(ECHO_REQUEST, b"\0\x07\0\x02straggler...")))
    assert parse_echo(plain.receive_packet(second)) == (ECHO_REPLY, b"\0\x07\0\x02straggler...")


def test_it_follows_when_we_roam(plain: Talk) -> None:
    session = plain.handshake()
    ping_it(plain, session, b"at home.")
    with plain.socket:
        plain.socket = plain.open_socket()
    ping_it(plain, session, b"on tour.")


def test_it_refuses_what_we_refuse(plain: Talk) -> None:
    old = plain.clock.next(time.time())
    plain.handshake()
    accepted = plain.clock.next(time.time())
    good = plain.initiator(accepted)
    for position in (1, 2, 3, 20, 50, 100, 120):
        damaged = bytearray(good.message)
        damaged[position] ^= 1
        plain.socket.send(bytes(damaged))
    plain.socket.send(with_macs(plain.their_public, bytes(good.message[:60]) + bytes(88), None))
    assert plain.is_silent()
    plain.socket.send(good.message)
    good.finish(plain.receive(MessageType.RESPONSE))
    time.sleep(FLOOD_SECONDS)
    plain.socket.send(good.message)  # a copy
    plain.socket.send(plain.initiator(accepted).message)  # an equal timestamp
    plain.socket.send(plain.initiator(old).message)
    assert plain.is_silent()
    plain.handshake()
    plain.socket.send(plain.initiator().message)  # within 20 ms: taken for a flood
    assert plain.is_silent()
    ping_it(plain, plain.handshake(), b"at last.")


def test_it_delivers_a_datagram_once(plain: Talk) -> None:
    session = plain.handshake()
    datagram = session.seal(echo(ECHO_REQUEST, b"\0\x07\0\x01once...."))
    for _ in range(3):
        plain.socket.send(datagram)
    ping_it_again = session.seal(echo(ECHO_REQUEST, b"\0\x07\0\x02then...."))
    plain.socket.send(ping_it_again)
    bodies = [parse_echo(plain.receive_packet(session))[1] for _ in range(2)]
    assert [body[4:] for body in bodies] == [b"once....", b"then...."]


def test_under_load_it_wants_a_cookie_and_takes_ours(plain: Talk) -> None:
    rubbish = with_macs(plain.their_public, bytes([MessageType.INITIATION, 0, 0, 0]) + os.urandom(144), None)
    for _ in range(FLOOD_MESSAGES):
        plain.socket.send(rubbish)
    drain(plain.socket)
    initiator = plain.initiator()
    plain.socket.send(plain.macs.sign(0.0, initiator.message))
    reply = decode_cookie_reply(plain.receive(MessageType.COOKIE_REPLY))  # the load is remembered for a second
    assert reply.receiver_index == initiator.sender_index
    plain.macs.handle_reply(0.0, reply)
    plain.socket.send(plain.macs.sign(0.0, initiator.message))
    transport = initiator.finish(plain.receive(MessageType.RESPONSE))
    ping_it(plain, Session(transport.install(1e12)), b"cookies.")


def drain(source: socket.socket) -> None:
    """Wait until nothing comes any more."""
    source.settimeout(QUIET_SECONDS)
    with contextlib.suppress(TimeoutError):
        while True:
            source.recv(2000)
    source.settimeout(ANSWER_SECONDS)


def test_it_takes_our_cookie_and_proves_its_address(plain: Talk) -> None:
    checker = CookieChecker(plain.keys.public, os.urandom)
    source = Endpoint(HOST, PORT)
    ping = plain.make_it_initiate()
    first = plain.receive(MessageType.INITIATION)
    assert mac1_valid(plain.keys.public, first)
    assert not checker.valid_mac2(0.0, source, first)
    plain.socket.send(checker.reply(0.0, first, source))
    plain.socket.settimeout(RETRY_SECONDS)
    second = plain.receive(MessageType.INITIATION)
    assert checker.valid_mac2(0.0, source, second)
    incoming = IncomingInitiation.open(plain.keys, second)
    assert incoming.timestamp > IncomingInitiation.open(plain.keys, first).timestamp
    response, transport = incoming.respond(plain.psk, 5, os.urandom)
    plain.socket.send(response)
    answer_ping(plain, Session(transport.install(1e12)), ping)
