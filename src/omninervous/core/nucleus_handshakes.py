"""Handshakes at a Nucleus: it answers everybody who proves a key, so what it spends on strangers is rationed.

In this order, cheapest check first; no state is kept for a sender that has not proven a key, and no answer is larger
than the question (148 bytes: a response has 92, a cookie reply 64):

    mac1 wrong                                silence: who does not know our key learns nothing
    a copy of an initiation just answered     the same response again (a lost one would cost the edge five seconds)
    valid mac2                                its own budget per source; beyond it silence
    from a proven endpoint (a rekey)          its own budget; beyond it a cookie
    too many new ones from this source        a cookie: the source may be a NAT with a thousand edges behind it
    too many new ones at all                  a cookie
    cannot be opened, or an old timestamp     silence

An IPv6 source is its /64.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from omninervous.core.clock import Entropy
from omninervous.core.cookies import CookieChecker, mac1_valid
from omninervous.core.noise import ZERO_PSK, IncomingInitiation, StaticKeys
from omninervous.core.nucleus_sessions import SESSION_LIFETIME, EdgeSession, SessionTable
from omninervous.core.ratelimit import RateLimiter, source_key
from omninervous.core.session import Session
from omninervous.errors import RemoteError
from omninervous.wire.address import Endpoint
from omninervous.wire.handshake import INITIATION_SIZE, MAC_SIZE

__all__ = ["HandshakeLimits", "Handshakes"]

MAX_REPEATS = 8
"""Copies of one response."""
_SIGNED = slice(None, -MAC_SIZE)
"""An initiation without mac2: copies differ only there."""


@dataclass(frozen=True, slots=True)
class HandshakeLimits:
    """What a Nucleus spends on handshakes. Rates are per second; each allows a burst of one second."""

    per_source: int = 10
    """New sessions of one source address."""
    per_source_with_cookie: int = 200
    """The same once the source has proven, by a cookie, to receive there."""
    total: int = 500
    """New sessions of all sources that have not proven it."""
    rekeys: int = 5
    """Sessions of one proven endpoint: an address behind a NAT's port."""


class Handshakes:
    """Answers initiations and puts the sessions into the table."""

    def __init__(
        self,
        static_private: bytes,
        sessions: SessionTable,
        entropy: Entropy,
        limits: HandshakeLimits,
        count: Callable[[str], None],
        memory: int,
    ) -> None:
        """`memory`: keys whose newest timestamp is remembered."""
        self._keys = StaticKeys(static_private)
        self._cookies = CookieChecker(self._keys.public, entropy)
        self._sessions = sessions
        self._entropy = entropy
        self._count = count
        self._memory = memory
        self._timestamps: OrderedDict[bytes, bytes] = OrderedDict()
        self._per_source = RateLimiter(limits.per_source, limits.per_source)
        self._with_cookie = RateLimiter(limits.per_source_with_cookie, limits.per_source_with_cookie)
        self._rekeys = RateLimiter(limits.rekeys, limits.rekeys)
        self._total = RateLimiter(limits.total, limits.total, capacity=1)

    def limit_sessions(self, per_source: int) -> None:
        """From now on so many new sessions of one address and second."""
        self._per_source.set_rate(per_source)

    def answer(self, now_boot: float, source: Endpoint, data: bytes) -> bytes | None:
        """The datagram that answers an initiation, None for silence. RemoteError (silence, too) with the reason."""
        if len(data) != INITIATION_SIZE or not mac1_valid(self._keys.public, data):
            raise RemoteError("bad_mac1")
        copied = self._sessions.of_initiation(data[_SIGNED])
        if copied is not None:
            return self._repeat(copied, source)
        if not self._affordable(now_boot, source, data):
            self._count("cookie_replies")
            return self._cookies.reply(now_boot, data, source)
        incoming = IncomingInitiation.open(self._keys, data)
        known = self._timestamps.get(incoming.remote_static)
        if known is not None and incoming.timestamp <= known:
            raise RemoteError("old_timestamp")
        response, transport = incoming.respond(ZERO_PSK, self._sessions.free_index(self._entropy), self._entropy)
        self._timestamps[incoming.remote_static] = incoming.timestamp
        self._timestamps.move_to_end(incoming.remote_static)
        if len(self._timestamps) > self._memory:
            self._timestamps.popitem(last=False)
        session = Session(transport.install(now_boot + SESSION_LIFETIME))
        self._sessions.add(EdgeSession(session, now_boot, source, data[_SIGNED], response, (source,)))
        self._count("handshakes_answered")
        return response

    def _affordable(self, now_boot: float, source: Endpoint, data: bytes) -> bool:
        """Whether to do the costly part. False: ask for a cookie. RemoteError `rate_limited`: not even that."""
        site = source_key(source.host)
        if self._cookies.valid_mac2(now_boot, source, data):
            if not self._with_cookie.allow(now_boot, site):
                raise RemoteError("rate_limited")
            return True
        if self._sessions.knows(source):
            return self._rekeys.allow(now_boot, str(source))
        if not self._per_source.allow(now_boot, site):
            self._count("rate_limited_sources")
            return False
        return self._total.allow(now_boot, "")

    def _repeat(self, copied: EdgeSession, source: Endpoint) -> bytes:
        if len(copied.answered) > MAX_REPEATS:
            raise RemoteError("repeated_initiation")
        copied.answered = (*copied.answered, source)
        self._count("responses_repeated")
        return copied.response
