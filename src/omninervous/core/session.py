"""An established session: seals and opens transport datagrams on all its lanes. Pure, and without a clock of its own.

The invariant: **no (key, counter) pair is ever used twice.** It rests on four rules, each kept in this file:

1. A sequence number is taken before anything is sealed with it. It is lost, not given back, when sealing fails.
2. Counters only go up. Nothing resets one: opening a lane again keeps the lane that is there, key and all.
3. A lane refuses to seal at its limit, long before its counter could run into the next lane's bits.
4. Keys come from one handshake with fresh ephemerals and are installed into one `Session`. A restart, a rekey and a
   crossing handshake each bring new keys; `wipe` is final. Who installs asks `same_key` first.

Every lane has its own key (`Transport.lane_keys`), and the lane stands in the counter's top bits as well.
"""

from __future__ import annotations

import struct
from hashlib import blake2s
from itertools import count
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from omninervous.core.dataplane import Aead, InstallSession, LaneKeys, OpenLanes
from omninervous.core.replay import ReplayWindow
from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.handshake import MessageType
from omninervous.wire.transport import (
    HEADER,
    HEADER_SIZE,
    LANE_BASE,
    LANE_REFLEX,
    LANE_SHIFT,
    MIN_TRANSPORT_SIZE,
    SEQUENCE_LIMIT,
    SEQUENCE_MASK,
    make_counter,
)

__all__ = ["AES_LIMIT", "AES_REKEY", "REKEY_AFTER_MESSAGES", "Opened", "Session"]

REKEY_AFTER_MESSAGES = 1 << 59
"""Sequence number of a ChaCha20-Poly1305 lane at which a new handshake is asked for."""
AES_REKEY = 1 << 27
"""The same for AES-256-GCM, whose confidentiality bound is counted in blocks per key."""
AES_LIMIT = 1 << 28
"""First sequence number that an AES-256-GCM lane neither sends nor accepts."""

_NONCE = struct.Struct("<4xQ")
# Looked up once, not for every packet.
_pack_nonce = _NONCE.pack
_pack_header = HEADER.pack
_unpack_header = HEADER.unpack_from
_TRANSPORT = int(MessageType.TRANSPORT)
_LANE_SLOTS = 16


class Opened(NamedTuple):
    """An authenticated payload that is no replay."""

    lane: int
    sequence: int
    payload: bytes
    """Empty: a keepalive. Else the first byte is the payload's kind."""
    highest: bool
    """Whether it is the lane's newest so far: only such a packet may move the peer's endpoint."""


class Session:
    """Keys, counters and replay windows of one session. One owner at a time; only `seal` may race with itself."""

    __slots__ = ("_fingerprint", "_lanes", "exhausted", "expires_at", "local_index", "peer", "remote_index")

    def __init__(self, spec: InstallSession) -> None:
        self.peer: Final = spec.peer
        self.local_index: Final = spec.local_index
        self.remote_index: Final = spec.remote_index
        self.expires_at = spec.expires_at
        """Boot-time second of its end: `open` refuses from then on; who seals must ask `expired` first."""
        self.exhausted = False
        """A lane's counter is near its limit: time for a new handshake."""
        self._fingerprint = _fingerprint(spec)
        base = LaneKeys(LANE_BASE, Aead.CHACHA20_POLY1305, spec.send_key, spec.recv_key)
        self._lanes: list[_Lane | None] = [None] * _LANE_SLOTS
        self._lanes[LANE_BASE] = _Lane(base, sends=True)

    def __repr__(self) -> str:
        lanes = [number for number, lane in enumerate(self._lanes) if lane is not None]
        return f"Session(local_index={self.local_index:#010x}, remote_index={self.remote_index:#010x}, lanes={lanes})"

    def same_key(self, spec: InstallSession) -> bool:
        """Whether a session of `spec` would seal with this one's key: then only one of them may ever be used."""
        return self._fingerprint == _fingerprint(spec)

    def expired(self, now_boot: float) -> bool:
        """Whether the session may neither send nor receive any more."""
        return now_boot > self.expires_at

    def seal(self, payload: bytes, lane: int = LANE_BASE) -> bytes:
        """The whole datagram for a payload. RemoteError `lane` (not open for sending, or wiped), `counter_limit`."""
        state = self._lanes[lane]
        if state is None or not state.sends:
            raise RemoteError("lane")
        sequence = next(state.sequences)
        if sequence >= state.rekey_at:
            self._near_limit(state, sequence)
        counter = state.first_counter + sequence
        return _pack_header(_TRANSPORT, self.remote_index, counter) + state.seal(_pack_nonce(counter), payload, None)

    def open(self, now_boot: float, datagram: bytes) -> Opened:
        """The payload of a datagram that came for `local_index`. RemoteError `expired`, `unknown_session`, `lane`,
        `counter_limit`, `replay`, `bad_tag`; DecodeError if it is no transport datagram. Only success changes state.
        """
        if now_boot > self.expires_at:
            raise RemoteError("expired")
        if len(datagram) < MIN_TRANSPORT_SIZE:
            raise DecodeError("runt")
        kind, index, counter = _unpack_header(datagram)
        if kind != _TRANSPORT:
            raise DecodeError("not a transport datagram")
        if index != self.local_index:
            raise RemoteError("unknown_session")
        state = self._lanes[counter >> LANE_SHIFT]
        if state is None:
            raise RemoteError("lane")
        sequence = counter & SEQUENCE_MASK
        if sequence >= state.limit:
            raise RemoteError("counter_limit")
        window = state.window
        highest = sequence > window.highest
        if not highest and not window.check(sequence):
            raise RemoteError("replay")
        try:
            payload = state.open(_pack_nonce(counter), datagram[HEADER_SIZE:], None)
        except InvalidTag:
            raise RemoteError("bad_tag") from None
        window.accept(sequence)
        return Opened(counter >> LANE_SHIFT, sequence, payload, highest)

    def open_lanes(self, command: OpenLanes) -> None:
        """Open lanes for receiving, and those of `tx` for sending as well. A lane that is open already stays as it
        is (rule 2), but `tx` always replaces the set that sends. Nothing happens to a wiped session."""
        assert command.local_index == self.local_index
        if self._lanes[LANE_BASE] is None:
            return
        for keys in command.lanes:
            assert LANE_BASE < keys.lane <= LANE_REFLEX, f"lane {keys.lane}"
            if self._lanes[keys.lane] is None:
                self._lanes[keys.lane] = _Lane(keys, sends=False)
        for number, state in enumerate(self._lanes[LANE_BASE + 1 :], LANE_BASE + 1):
            if state is not None:
                state.sends = number in command.tx

    def advance(self, lane: int, sequence: int) -> None:
        """Skip sequence numbers: the lane's next one is `sequence`. Only forward (rule 2)."""
        state = self._lanes[lane]
        assert state is not None, f"lane {lane}"
        following = next(state.sequences)
        assert following <= sequence, f"lane {lane} would go back from {following} to {sequence}"
        state.sequences = count(sequence)

    def wipe(self) -> None:
        """Forget all keys. Nothing can be sealed or opened from now on."""
        self._lanes = [None] * _LANE_SLOTS
        self.expires_at = float("-inf")

    def _near_limit(self, state: _Lane, sequence: int) -> None:
        self.exhausted = True
        if sequence >= state.limit:
            raise RemoteError("counter_limit")


def _fingerprint(spec: InstallSession) -> bytes:
    """Tells sending keys apart without keeping them."""
    return blake2s(spec.send_key).digest()


class _Lane:
    """One lane in both directions."""

    __slots__ = ("first_counter", "limit", "open", "rekey_at", "seal", "sends", "sequences", "window")

    def __init__(self, keys: LaneKeys, *, sends: bool) -> None:
        cipher = ChaCha20Poly1305 if keys.aead is Aead.CHACHA20_POLY1305 else AESGCM
        # Bound methods: one attribute look-up less for every packet.
        self.seal = cipher(keys.send_key).encrypt
        self.open = cipher(keys.recv_key).decrypt
        # next() on itertools.count is one uninterruptible step: two threads never draw the same number.
        self.sequences = count()
        self.first_counter = make_counter(keys.lane, 0)
        aes = keys.aead is Aead.AES_256_GCM
        self.rekey_at = AES_REKEY if aes else REKEY_AFTER_MESSAGES
        self.limit = AES_LIMIT if aes else SEQUENCE_LIMIT
        self.window = ReplayWindow()
        self.sends = sends
