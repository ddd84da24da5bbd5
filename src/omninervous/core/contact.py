"""Getting into a session with a Nucleus: who is it (HELLO), is that its pinned key, and the handshake.

A key from a HELLO_REPLY is a claim. It counts once the handshake with it succeeds, and is pinned then. A Nucleus whose
key is known is not asked, unless it does not answer the handshake for a second: its reply then tells a wrong key from a
Nucleus that is down.
"""

from __future__ import annotations

from omninervous.core.clock import Now
from omninervous.core.context import Context
from omninervous.core.dataplane import SendDatagram
from omninervous.core.events import NucleusConfig, NucleusKeyMismatch, NucleusPinned
from omninervous.core.handshakes import MAX_ENDPOINTS, Handshakes
from omninervous.core.identity import x25519_of
from omninervous.core.own import OwnAddress
from omninervous.core.peer import Peer
from omninervous.core.profile import Kind, PeerProfile
from omninervous.core.timers import earliest
from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.address import Endpoint
from omninervous.wire.control import OUR_VERSIONS
from omninervous.wire.hello import NONCE_SIZE, Hello, decode_hello_reply
from omninervous.wire.keytext import encode_key

__all__ = ["Contact"]

CONTACT_SECONDS = 5.0
CONTACT_JITTER = 1 / 3
HELLO_GAPS = (0.5, 1.0, 1.5)
"""Seconds between one HELLO and the next."""
CHECK_KEY_AFTER = 1.0


class Contact:
    """How one Nucleus is reached. `peer` carries the sessions with it."""

    def __init__(self, ctx: Context, handshakes: Handshakes, own: OwnAddress, config: NucleusConfig) -> None:
        self._ctx = ctx
        self._handshakes = handshakes
        self._own = own
        self._config = config
        self.peer: Peer | None = None
        self.key = config.key
        """Its Ed25519 key: pinned, or as it says."""
        self.endpoints: tuple[Endpoint, ...] = ()
        self.hint = ""
        """What keeps us from it."""
        self._proven = config.key is not None
        self._hello: Hello | None = None
        self._hellos = 0
        self._hello_at: float | None = None
        self._ends_at: float | None = None

    @property
    def under_way(self) -> bool:
        """It still tries."""
        trying = self.key is None or (self.peer is not None and self.peer.connecting)
        return self._ends_at is not None and trying

    def set_endpoints(self, now: Now, endpoints: tuple[Endpoint, ...]) -> None:
        """Where its name resolves to."""
        self.endpoints = endpoints[:MAX_ENDPOINTS]
        if self.peer is not None:
            self.peer.set_candidates(now, self.endpoints)

    def begin(self, now: Now) -> None:
        """Try for some five seconds."""
        self._hello = Hello(self._ctx.entropy(NONCE_SIZE))
        self._hellos = 0
        self._ends_at = now.boot + CONTACT_SECONDS + self._ctx.jitter(CONTACT_JITTER)
        if self.key is None:
            self._say_hello(now)
        else:
            self._hello_at = now.boot + CHECK_KEY_AFTER
            self._handshake(now, self.key)

    def succeeded(self) -> None:
        """A session is there: its key is proven."""
        assert self.key is not None
        self._hello = None
        self._hello_at = self._ends_at = None
        self.hint = ""
        self._ctx.solved("wrong_nucleus_key", self._config.name)
        if not self._proven:
            self._proven = True
            self._ctx.events.append(NucleusPinned(self._config.name, self.key))

    def stop(self, reason: str) -> None:
        """Give up, or hang up."""
        self._hello = None
        self._hello_at = self._ends_at = None
        if not self._proven:
            self.key = None
        if self.peer is not None:
            self.peer.drop_sessions(reason)
            self._ctx.nuclei.pop(self.peer.profile.id, None)

    def handle_timeout(self, now: Now) -> bool:
        """Whatever is due; True when the time for this try is over."""
        if self._hello_at is not None and now.boot >= self._hello_at:
            self._say_hello(now)
        return self._ends_at is not None and now.boot >= self._ends_at

    def deadline(self) -> float | None:
        """When `handle_timeout` has something to do."""
        return earliest(self._hello_at, self._ends_at)

    def handle_hello_reply(self, now: Now, data: bytes) -> None:
        """Type 6. RemoteError `unknown_hello` if it answers no HELLO of ours, `malformed`, `version`."""
        try:
            reply = decode_hello_reply(data)
        except DecodeError:
            raise RemoteError("malformed") from None
        if self._hello is None or reply.nonce != self._hello.nonce:
            raise RemoteError("unknown_hello")
        self._hello_at = None
        if self.key is None:
            if reply.versions.common(OUR_VERSIONS) is None:
                self.hint = f"speaks protocol versions {reply.versions.minimum} to {reply.versions.maximum} only"
                raise RemoteError("version")
            self.key = reply.identity
            self._handshake(now, reply.identity)
        elif reply.identity != self.key and self._proven:
            self._report_mismatch(reply.identity, self.key)

    def _say_hello(self, now: Now) -> None:
        assert self._hello is not None
        self._ctx.commands += [SendDatagram(endpoint, self._hello.encode()) for endpoint in self.endpoints]
        self._hello_at = now.boot + HELLO_GAPS[self._hellos] if self._hellos < len(HELLO_GAPS) else None
        self._hellos += 1

    def _handshake(self, now: Now, key: bytes) -> None:
        try:
            x25519 = x25519_of(key)
        except RemoteError:
            self.hint = "its key is not a valid one"
            self.key = self._config.key
            return
        owner = self._ctx.nuclei.setdefault(x25519, self._config.name)
        if owner != self._config.name:
            self.hint = f"is the same Nucleus as {owner}"
            return
        if self.peer is None or self.peer.profile.id != x25519:
            self.peer = Peer(self._ctx, self._handshakes, self._own, PeerProfile(x25519, Kind.NUCLEUS, identity=key))
            self.peer.set_policy(None)
        self.peer.set_candidates(now, self.endpoints)
        self.peer.connect(now)

    def _report_mismatch(self, shown: bytes, pinned: bytes) -> None:
        name, given = self._config.name, self._config.given
        self.hint = f"shows the key {encode_key(shown)} instead of {encode_key(pinned)}"
        remedy = (
            f"check the key after '#' in --nucleus {name}#..."
            if given
            else "if it was set up anew, name its new key as --nucleus HOST:PORT#KEY"
        )
        text = f"Nucleus {name} {self.hint}, so it is not talked to: {remedy}"
        if self._ctx.problem("wrong_nucleus_key", text, name):
            self._ctx.events.append(NucleusKeyMismatch(name, pinned, shown, given))
