"""The invariant of every session: no (key, counter) pair is ever used twice, and no datagram is delivered twice.

Two sessions that share a handshake live through sealing on every lane, lanes opened again and again (also with other
keys and another AEAD), counters that skip ahead, loss, duplication, reordering, damage, and wiping.
"""

from __future__ import annotations

import contextlib

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from omninervous.core.dataplane import Aead, InstallSession, LaneKeys, OpenLanes
from omninervous.core.session import AES_LIMIT, Session
from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.transport import SEQUENCE_LIMIT, decode_header

LANES = st.integers(1, 8)
AEADS = st.sampled_from(list(Aead))
Sent = tuple[int, bytes, bytes]  # side, payload, datagram


def secret(*parts: int) -> bytes:
    return bytes(parts).ljust(32, b"\xee")


class SessionMachine(RuleBasedStateMachine):
    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        first, second = secret(1), secret(2)
        self.sessions = (
            Session(InstallSession(b"b" * 32, 100, 200, first, second, 1000.0)),
            Session(InstallSession(b"a" * 32, 200, 100, second, first, 1000.0)),
        )
        self.counters: tuple[set[int], set[int]] = (set(), set())
        self.delivered: set[bytes] = set()
        self.wiped = [False, False]
        self.first_aead: list[dict[int, Aead]] = [{}, {}]

    @rule(side=st.integers(0, 1), lanes=st.lists(LANES, max_size=4), tx=st.lists(LANES, max_size=4), aead=AEADS)
    def open_lanes(self, side: int, lanes: list[int], tx: list[int], aead: Aead) -> None:
        keys = []
        for lane in lanes:
            self.first_aead[side].setdefault(lane, aead)
            pair = (secret(lane, aead.value, 0), secret(lane, aead.value, 1))
            send, recv = pair if side == 0 else pair[::-1]
            keys.append(LaneKeys(lane, aead, send, recv))
        self.sessions[side].open_lanes(OpenLanes(100 if side == 0 else 200, tuple(keys), tuple(tx)))

    @rule(target=sent, side=st.integers(0, 1), lane=st.integers(0, 15), payload=st.binary(max_size=20))
    def seal(self, side: int, lane: int, payload: bytes) -> Sent:
        try:
            datagram = self.sessions[side].seal(payload, lane)
        except RemoteError as error:
            assert error.reason in ("lane", "counter_limit")
            return side, b"", b""
        assert not self.wiped[side]
        counter = decode_header(datagram).counter
        # A lane keeps its first key for life, so within a session the counter stands for the pair.
        assert counter not in self.counters[side]
        assert counter >> 60 == lane
        self.counters[side].add(counter)
        return side, payload, datagram

    @rule(side=st.integers(0, 1), lane=LANES, ahead=st.sampled_from([1, 100, 10_000, 1 << 28, 1 << 59]))
    def skip(self, side: int, lane: int, ahead: int) -> None:
        if self.wiped[side] or lane not in self.first_aead[side]:
            return
        limit = AES_LIMIT if self.first_aead[side][lane] is Aead.AES_256_GCM else SEQUENCE_LIMIT
        newest = max((counter & (1 << 60) - 1 for counter in self.counters[side] if counter >> 60 == lane), default=0)
        with contextlib.suppress(AssertionError):  # to go back is a bug of the caller, and refused
            self.sessions[side].advance(lane, min(newest + ahead, limit - 2))

    @rule(message=sent)
    def deliver(self, message: Sent) -> None:
        side, payload, datagram = message
        receiver = 1 - side
        try:
            opened = self.sessions[receiver].open(0.0, datagram)
        except (RemoteError, DecodeError):
            return
        assert not self.wiped[receiver]
        assert opened.payload == payload
        assert datagram not in self.delivered
        self.delivered.add(datagram)

    @rule(message=sent, position=st.integers(0, 60), bit=st.integers(0, 7))
    def deliver_damaged(self, message: Sent, position: int, bit: int) -> None:
        side, _, datagram = message
        damaged = bytearray(datagram)
        if not damaged:
            return
        damaged[position % len(damaged)] ^= 1 << bit
        try:
            self.sessions[1 - side].open(0.0, bytes(damaged))
        except (RemoteError, DecodeError):
            return
        raise AssertionError("damage was accepted")

    @rule(side=st.integers(0, 1))
    def wipe(self, side: int) -> None:
        if len(self.counters[side]) > 5:
            self.sessions[side].wipe()
            self.wiped[side] = True

    @invariant()
    def a_wiped_session_is_expired(self) -> None:
        assert all(session.expired(0.0) is wiped for session, wiped in zip(self.sessions, self.wiped, strict=True))


SessionMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestSessionMachine = SessionMachine.TestCase
