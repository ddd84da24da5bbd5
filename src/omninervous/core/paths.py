"""Where a peer's datagrams go, and how an address earns that.

Source addresses of UDP can be forged, by anybody on the way. So an address is *proven* only by a round trip:

* a handshake message that went to this address alone was answered, or
* a PATH_CHALLENGE to it came back as PATH_RESPONSE.

Until then it gets at most three times the bytes that came from it, the challenge included: nobody can be flooded with
traffic that a peer of ours asked for in his name.

| what happens                                          | effect                                                      |
|-------------------------------------------------------|-------------------------------------------------------------|
| authentic newest packet from another address          | challenge it; data stays on the proven endpoint meanwhile   |
| the same, while no endpoint is proven                 | use it with a budget of 3x, and challenge it                |
| round trip                                            | it is the endpoint, without budget                          |
| stock WireGuard peer, Nucleus                         | WireGuard's rule: the newest authentic source is right      |
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from omninervous.core.clock import Now
from omninervous.core.context import Context
from omninervous.core.dataplane import Link, PeerId, SendControl, SetEndpoint
from omninervous.core.timers import earliest
from omninervous.wire.address import Endpoint
from omninervous.wire.control import TOKEN_SIZE, PathChallenge
from omninervous.wire.transport import MIN_TRANSPORT_SIZE

__all__ = ["AMPLIFICATION_LIMIT", "CHALLENGE_SIZE", "Path"]

AMPLIFICATION_LIMIT = 3
CHALLENGE_SIZE = MIN_TRANSPORT_SIZE + len(PathChallenge(bytes(TOKEN_SIZE)).encode())
"""UDP payload bytes of a challenge."""
CHALLENGE_AGAIN_AFTER = (0.25, 1.0, 2.0)
CHALLENGE_LIFETIME = 5.0
MAX_CHALLENGES = 4
"""At once per peer; the oldest goes first."""


@dataclass(slots=True)
class _Challenge:
    token: bytes
    local_index: int
    began: float
    allowance: int
    """Bytes that may still be sent to the address."""
    sent: int = 0

    def next_at(self) -> float:
        step = self.sent - 1
        after = CHALLENGE_AGAIN_AFTER[step] if step < len(CHALLENGE_AGAIN_AFTER) else CHALLENGE_LIFETIME
        return self.began + (after if self.allowance >= CHALLENGE_SIZE else CHALLENGE_LIFETIME)


class Path:
    """The endpoint of one peer."""

    def __init__(self, ctx: Context, peer: PeerId, link: Link) -> None:
        self._ctx = ctx
        self._peer = peer
        self._link = link
        self.endpoint: Endpoint | None = None
        self.proven = False
        self._challenges: OrderedDict[Endpoint, _Challenge] = OrderedDict()

    def handle_handshake(
        self, now: Now, local_index: int, source: Endpoint, size: int, sent_to: Sequence[Endpoint]
    ) -> None:
        """Something came that only a receiver of our handshake message can have made; `sent_to`: where that went."""
        if self._link is not Link.ETHERNET or tuple(sent_to) == (source,):
            self._prove(source)
        else:
            self.handle_source(now, local_index, source, size)

    def handle_source(self, now: Now, local_index: int, source: Endpoint, size: int) -> None:
        """An authentic packet of `size` bytes, the newest of its lane, came from `source`."""
        if self._link is not Link.ETHERNET:
            self._prove(source)
            return
        if source == self.endpoint and self.proven:
            return
        credit = AMPLIFICATION_LIMIT * size
        challenge = self._challenges.get(source)
        if challenge is None:
            token = self._ctx.entropy(TOKEN_SIZE)
            challenge = self._challenges[source] = _Challenge(token, local_index, now.boot, 0)
            while len(self._challenges) > MAX_CHALLENGES:
                self._challenges.popitem(last=False)
        challenge.local_index = local_index
        if not challenge.sent and credit >= CHALLENGE_SIZE:
            credit -= CHALLENGE_SIZE
            self._challenge(source, challenge)
        if self.proven:
            challenge.allowance += credit
            return
        # One more challenge is kept back for a repetition; the rest is for data.
        kept = min(credit, CHALLENGE_SIZE)
        challenge.allowance += kept
        self._set(source, budget=credit - kept)

    def handle_response(self, token: bytes) -> bool:
        """A PATH_RESPONSE: whether it proved a path."""
        for target, challenge in self._challenges.items():
            if challenge.token == token:
                del self._challenges[target]
                self._prove(target)
                return True
        return False

    def handle_timeout(self, now: Now) -> None:
        """Repeat and forget challenges."""
        for target, challenge in list(self._challenges.items()):
            if now.boot < challenge.next_at():
                continue
            if now.boot >= challenge.began + CHALLENGE_LIFETIME:
                del self._challenges[target]
            else:
                challenge.allowance -= CHALLENGE_SIZE
                self._challenge(target, challenge)

    def deadline(self) -> float | None:
        """When `handle_timeout` has something to do."""
        return earliest(*(challenge.next_at() for challenge in self._challenges.values()))

    def distrust(self) -> None:
        """The session that proved the endpoint is gone or its peer is silent: look everywhere again."""
        self.proven = False
        self._challenges.clear()

    def forget(self) -> None:
        """The peer goes."""
        self.distrust()
        if self.endpoint is not None and self._ctx.endpoints.get(self.endpoint) == self._peer:
            del self._ctx.endpoints[self.endpoint]
        self.endpoint = None

    def _prove(self, endpoint: Endpoint) -> None:
        if self.proven and self.endpoint == endpoint:
            return
        if self.proven:
            self._ctx.count("roamed")
        self._challenges.pop(endpoint, None)
        self._set(endpoint, budget=None)

    def _set(self, endpoint: Endpoint, budget: int | None) -> None:
        known = self._ctx.endpoints
        if endpoint != self.endpoint:
            if self.endpoint is not None and known.get(self.endpoint) == self._peer:
                del known[self.endpoint]
            self.endpoint = endpoint
        known[endpoint] = self._peer
        self.proven = budget is None
        self._ctx.commands.append(SetEndpoint(self._peer, endpoint, budget))

    def _challenge(self, target: Endpoint, challenge: _Challenge) -> None:
        challenge.sent += 1
        payload = PathChallenge(challenge.token).encode()
        self._ctx.commands.append(SendControl(challenge.local_index, payload, target))
