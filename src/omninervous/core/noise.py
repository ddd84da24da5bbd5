"""WireGuard's handshake: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s (the WireGuard paper, 5.4.2 and 5.4.3).

    <- s
    ...
    -> e, es, s, ss, {timestamp}
    <- e, ee, se, psk, {}

Both machines take randomness and the timestamp as arguments, so that a transcript can be replayed byte for byte.

Error contract: whatever arrives, `Initiator.finish` and `IncomingInitiation.open` give a result or RemoteError, and a
message that fails changes nothing: the true response may still come. Keys never show in a repr. Python cannot
overwrite `bytes`; keys are forgotten by dropping the last reference to them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from omninervous.core.clock import Entropy
from omninervous.core.cookies import NO_MAC2, mac1_valid, with_macs
from omninervous.core.dataplane import Aead, InstallSession, LaneKeys
from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.handshake import KEY_SIZE, Initiation, Response, decode_initiation, decode_response
from omninervous.wire.transport import LANE_BASE, LANE_REFLEX

__all__ = [
    "SESSION_ID_SIZE",
    "SHARED_SECRETS_KEPT",
    "ZERO_PSK",
    "IncomingInitiation",
    "Initiator",
    "StaticKeys",
    "SymmetricState",
    "Transport",
    "public_key",
]

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LANE_LABEL = b"omninervous lane v1"

ZERO_PSK = bytes(KEY_SIZE)
"""The pre-shared key of two peers that have none."""
SESSION_ID_SIZE = 8
SHARED_SECRETS_KEPT = 1024
"""Static-static results that `StaticKeys` remembers: each saves a handshake one of its X25519 computations."""

_NONCE: Final = bytes(12)
_INITIAL_CHAIN: Final = hashlib.blake2s(CONSTRUCTION).digest()
_INITIAL_HASH: Final = hashlib.blake2s(_INITIAL_CHAIN + IDENTIFIER).digest()


def public_key(private: bytes) -> bytes:
    """X25519 public key (32 bytes) of a private one."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


class StaticKeys:
    """Our static key pair with what is worth computing once: the parsed key, and the DH results of proven peers."""

    __slots__ = ("_private", "_shared", "public")

    def __init__(self, private: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(private)
        self.public: Final = self._private.public_key().public_bytes_raw()
        self._shared: OrderedDict[bytes, bytes] = OrderedDict()

    def __repr__(self) -> str:
        return f"StaticKeys(public={self.public.hex()})"

    def exchange(self, remote: bytes) -> bytes:
        """X25519 with an ephemeral key. RemoteError `weak_key` if the result is all zero."""
        return _exchange(self._private, remote)

    def shared(self, remote_static: bytes) -> bytes:
        """X25519 with a static key, from memory if it is there. RemoteError `weak_key`."""
        known = self._shared.get(remote_static)
        if known is None:
            return _exchange(self._private, remote_static)
        self._shared.move_to_end(remote_static)
        return known

    def remember(self, remote_static: bytes, shared: bytes) -> None:
        """Keep the result for a peer that we chose, or that has proven to have the key; the least used one goes."""
        self._shared[remote_static] = shared
        if len(self._shared) > SHARED_SECRETS_KEPT:
            self._shared.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Transport:
    """What a finished handshake yields."""

    local_index: int
    remote_index: int
    send_key: bytes = field(repr=False)
    """Key of lane 0, us to the peer."""
    recv_key: bytes = field(repr=False)
    initiator: bool
    """Whether we sent the initiation."""
    session_id: bytes
    """First 8 bytes of the handshake hash: not secret, the same on both sides."""
    remote_static: bytes
    """The peer's X25519 public key."""
    handshake_hash: bytes = field(repr=False)
    chaining_key: bytes = field(repr=False)
    """Root of the lanes' keys; as secret as the keys themselves."""

    def lane_keys(self, lane: int, aead: Aead) -> LaneKeys:
        """Keys of a lane beside lane 0, labelled so that no other lane, AEAD, direction or handshake shares them."""
        assert LANE_BASE < lane <= LANE_REFLEX, f"lane {lane}"
        assert lane != LANE_REFLEX or aead is Aead.CHACHA20_POLY1305, "the reflex lane has one AEAD"
        forward, backward = (
            _kdf(
                self.chaining_key,
                LANE_LABEL + bytes((lane, aead.value, direction)) + self.handshake_hash,
                1,
            )[0]
            for direction in (0, 1)  # 0: initiator to responder
        )
        send, recv = (forward, backward) if self.initiator else (backward, forward)
        return LaneKeys(lane, aead, send, recv)

    def install(self, expires_at: float) -> InstallSession:
        """The engine's command for this session. `expires_at` in boot-time seconds."""
        return InstallSession(
            self.remote_static, self.local_index, self.remote_index, self.send_key, self.recv_key, expires_at
        )


class Initiator:
    """One handshake that we began. `message` may be sent any number of times: the responder takes one copy."""

    __slots__ = ("_ephemeral", "_keys", "_psk", "_state", "message", "remote_static", "sender_index")

    def __init__(
        self,
        keys: StaticKeys,
        remote_static: bytes,
        psk: bytes,
        sender_index: int,
        ephemeral: X25519PrivateKey,
        state: SymmetricState,
        message: bytes,
    ) -> None:
        self._keys = keys
        self._psk = psk
        self._ephemeral = ephemeral
        self._state: SymmetricState | None = state
        self.remote_static: Final = remote_static
        self.sender_index: Final = sender_index
        self.message: Final = message
        """148 bytes. mac2 is zero unless there was a cookie; `MacGenerator.sign` renews both macs."""

    @classmethod
    def create(
        cls,
        static_private: bytes | StaticKeys,
        remote_static: bytes,
        psk: bytes,
        timestamp: bytes,
        sender_index: int,
        entropy: Entropy,
        *,
        cookie: bytes | None = None,
    ) -> Initiator:
        """Begin a handshake. `timestamp` (TAI64N, 12 bytes) must be newer than any sent to this peer before.
        RemoteError `weak_key` if the peer's key is a point of low order."""
        keys = _static(static_private)
        ephemeral = X25519PrivateKey.from_private_bytes(entropy(KEY_SIZE))
        ephemeral_public = ephemeral.public_key().public_bytes_raw()
        state = SymmetricState(_INITIAL_CHAIN, _INITIAL_HASH)
        state.mix_hash(remote_static)
        state.mix_ephemeral(ephemeral_public)
        key = state.mix_key(_exchange(ephemeral, remote_static))
        encrypted_static = state.seal(key, keys.public)
        shared = keys.shared(remote_static)
        keys.remember(remote_static, shared)
        key = state.mix_key(shared)
        encrypted_timestamp = state.seal(key, timestamp)
        unsigned = Initiation(sender_index, ephemeral_public, encrypted_static, encrypted_timestamp, NO_MAC2, NO_MAC2)
        message = with_macs(remote_static, unsigned.encode(), cookie)
        return cls(keys, remote_static, psk, sender_index, ephemeral, state, message)

    def finish(self, response: bytes) -> Transport:
        """The session, from the peer's response. RemoteError (`malformed`, `bad_mac1`, `unknown_handshake`,
        `weak_key`, `bad_tag`) leaves this machine as it was; after a success it knows no keys, and every
        further response is `handshake_done`."""
        if self._state is None:
            raise RemoteError("handshake_done")
        try:
            message = decode_response(response)
        except DecodeError as error:
            raise RemoteError("malformed", str(error)) from None
        if not mac1_valid(self._keys.public, response):
            raise RemoteError("bad_mac1")
        if message.receiver_index != self.sender_index:
            raise RemoteError("unknown_handshake")
        state = self._state.copy()
        state.mix_ephemeral(message.ephemeral)
        state.mix_chain(_exchange(self._ephemeral, message.ephemeral))
        state.mix_chain(self._keys.exchange(message.ephemeral))
        key = state.mix_psk(self._psk)
        if state.open(key, message.encrypted_nothing):
            raise AssertionError("a tag alone cannot carry a payload")
        self._state = None
        self._psk = b""
        return state.split(self.sender_index, message.sender_index, self.remote_static, initiator=True)

    def __repr__(self) -> str:
        return f"Initiator(sender_index={self.sender_index:#010x}, remote_static={self.remote_static.hex()})"


class IncomingInitiation:
    """An initiation whose sender has proven to own `remote_static`; who that is, and whether the timestamp is newer
    than its last, is for the caller to check before it responds."""

    __slots__ = ("_ephemeral", "_state", "remote_static", "sender_index", "timestamp")

    def __init__(
        self, remote_static: bytes, timestamp: bytes, sender_index: int, ephemeral: bytes, state: SymmetricState
    ) -> None:
        self.remote_static: Final = remote_static
        self.timestamp: Final = timestamp
        """TAI64N, 12 bytes: newer means greater, compared as bytes."""
        self.sender_index: Final = sender_index
        self._ephemeral = ephemeral
        self._state = state

    @classmethod
    def open(cls, static_private: bytes | StaticKeys, message: bytes) -> IncomingInitiation:
        """Decrypt an initiation. RemoteError (`malformed`, `bad_mac1`, `weak_key`, `bad_tag`). mac1 is checked before
        anything costly."""
        keys = _static(static_private)
        try:
            initiation = decode_initiation(message)
        except DecodeError as error:
            raise RemoteError("malformed", str(error)) from None
        if not mac1_valid(keys.public, message):
            raise RemoteError("bad_mac1")
        state = SymmetricState(_INITIAL_CHAIN, _INITIAL_HASH)
        state.mix_hash(keys.public)
        state.mix_ephemeral(initiation.ephemeral)
        key = state.mix_key(keys.exchange(initiation.ephemeral))
        remote_static = state.open(key, initiation.encrypted_static)
        shared = keys.shared(remote_static)
        key = state.mix_key(shared)
        timestamp = state.open(key, initiation.encrypted_timestamp)
        keys.remember(remote_static, shared)  # only now: the timestamp's tag proved that the sender has the key
        return cls(remote_static, timestamp, initiation.sender_index, initiation.ephemeral, state)

    def respond(
        self, psk: bytes, sender_index: int, entropy: Entropy, cookie: bytes | None = None
    ) -> tuple[bytes, Transport]:
        """The 92-byte response, and the session, which stays unconfirmed until the initiator uses it.
        RemoteError `weak_key`."""
        ephemeral = X25519PrivateKey.from_private_bytes(entropy(KEY_SIZE))
        ephemeral_public = ephemeral.public_key().public_bytes_raw()
        state = self._state.copy()
        state.mix_ephemeral(ephemeral_public)
        state.mix_chain(_exchange(ephemeral, self._ephemeral))
        state.mix_chain(_exchange(ephemeral, self.remote_static))
        encrypted_nothing = state.seal(state.mix_psk(psk), b"")
        unsigned = Response(sender_index, self.sender_index, ephemeral_public, encrypted_nothing, NO_MAC2, NO_MAC2)
        message = with_macs(self.remote_static, unsigned.encode(), cookie)
        return message, state.split(sender_index, self.sender_index, self.remote_static, initiator=False)

    def __repr__(self) -> str:
        return f"IncomingInitiation(sender_index={self.sender_index:#010x}, remote_static={self.remote_static.hex()})"


class SymmetricState:
    """Noise's symmetric state (Noise, 5.2): chaining key and transcript hash. For the two machines above; public only
    so that Noise's own test vectors, which have other prologues and payloads, can drive it."""

    __slots__ = ("_chain", "_hash")

    def __init__(self, chain: bytes, transcript: bytes) -> None:
        self._chain = chain
        self._hash = transcript

    def copy(self) -> SymmetricState:
        return SymmetricState(self._chain, self._hash)

    def mix_hash(self, data: bytes) -> None:
        self._hash = hashlib.blake2s(self._hash + data).digest()

    def mix_chain(self, data: bytes) -> None:
        (self._chain,) = _kdf(self._chain, data, 1)

    def mix_ephemeral(self, ephemeral: bytes) -> None:
        self.mix_hash(ephemeral)
        self.mix_chain(ephemeral)  # a PSK handshake mixes ephemerals into the key too (Noise, 9.2)

    def mix_key(self, secret: bytes) -> bytes:
        self._chain, key = _kdf(self._chain, secret, 2)
        return key

    def mix_psk(self, psk: bytes) -> bytes:
        self._chain, transcript_key, key = _kdf(self._chain, psk, 3)
        self.mix_hash(transcript_key)
        return key

    def seal(self, key: bytes, plaintext: bytes) -> bytes:
        ciphertext = ChaCha20Poly1305(key).encrypt(_NONCE, plaintext, self._hash)
        self.mix_hash(ciphertext)
        return ciphertext

    def open(self, key: bytes, ciphertext: bytes) -> bytes:
        try:
            plaintext = ChaCha20Poly1305(key).decrypt(_NONCE, ciphertext, self._hash)
        except InvalidTag:
            raise RemoteError("bad_tag") from None
        self.mix_hash(ciphertext)
        return plaintext

    def split(self, local_index: int, remote_index: int, remote_static: bytes, *, initiator: bool) -> Transport:
        forward, backward = _kdf(self._chain, b"", 2)
        send, recv = (forward, backward) if initiator else (backward, forward)
        session_id = self._hash[:SESSION_ID_SIZE]
        return Transport(
            local_index, remote_index, send, recv, initiator, session_id, remote_static, self._hash, self._chain
        )


def _static(private: bytes | StaticKeys) -> StaticKeys:
    return private if isinstance(private, StaticKeys) else StaticKeys(private)


def _exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    """X25519 (RFC 7748). A point of low order gives zero for every private key: such a secret is known to all."""
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise RemoteError("weak_key") from None


def _kdf(chain: bytes, data: bytes, count: int) -> list[bytes]:
    """The paper's KDF1, KDF2, KDF3: HKDF (RFC 5869) with HMAC-BLAKE2s, `chain` as salt and no info."""
    secret = hmac.digest(chain, data, hashlib.blake2s)
    outputs: list[bytes] = []
    previous = b""
    for number in range(1, count + 1):
        previous = hmac.digest(secret, previous + bytes((number,)), hashlib.blake2s)
        outputs.append(previous)
    return outputs
