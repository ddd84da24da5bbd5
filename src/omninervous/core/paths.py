"""Where a peer's datagrams go: its addresses, how one of them earns that, and when another is better.

Source addresses of UDP can be forged, by anybody on the way. So an address is *proven* only by a round trip:

* a handshake message that went to this address alone was answered, or
* a PATH_CHALLENGE to it came back as PATH_RESPONSE.

Until then an address that was only seen as a source gets at most three times the bytes that came from it, challenges
included: nobody can be flooded with traffic that a peer of ours asked for in his name. An address that the peer named
(through the Nucleus, or the operator) gets the few challenges of a round (`route.py`), and no data.

| what happens                                            | effect                                                    |
|---------------------------------------------------------|-----------------------------------------------------------|
| the peer's frames come from another address             | challenge it; data stays on the proven one meanwhile      |
| the same, while no endpoint is proven                   | use it with a budget of 3x, and challenge it              |
| round trip: first of all, or where the peer went        | it is the endpoint, without budget                        |
| round trip: faster than the endpoint, or a better kind  | it becomes the endpoint; the peer is told (`in use`)      |
| data without answers, or our own network changed        | doubt: challenge every address; take what answers first   |
| doubt, and nobody answers for 0.8 s                     | lost: a new handshake to everywhere                       |
| stock WireGuard peer, Nucleus                           | WireGuard's rule: the newest authentic source is right    |

While data flows, the endpoint and the best others are measured every ten seconds, and the best of those that fell
silent is tried again. A peer with several addresses may send from one and be best reached at another: so only a
*change* of its source moves us.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

from omninervous.core.clock import Now
from omninervous.core.context import Context, PathMoved
from omninervous.core.dataplane import Link, PeerId, SendControl, SetEndpoint
from omninervous.core.events import PathMeasured, PathStatus
from omninervous.core.pathkind import PathKind, kind_of
from omninervous.core.route import Route
from omninervous.core.timers import earliest
from omninervous.wire.address import Endpoint
from omninervous.wire.control import TOKEN_SIZE, PathChallenge, PathResponse
from omninervous.wire.transport import MIN_TRANSPORT_SIZE

__all__ = ["AMPLIFICATION_LIMIT", "CHALLENGE_SIZE", "Paths"]

AMPLIFICATION_LIMIT = 3
CHALLENGE_SIZE = MIN_TRANSPORT_SIZE + len(PathChallenge(bytes(TOKEN_SIZE), in_use=True).encode())
"""UDP payload bytes of a challenge, at most."""
RESPONSE_SIZE = MIN_TRANSPORT_SIZE + len(PathResponse(bytes(TOKEN_SIZE), Endpoint("::1", 1)).encode())
MAX_ROUTES = 12
"""Addresses remembered per peer; the oldest unanswered one goes first."""
ALTERNATIVE_AFTER = 0.3
"""Seconds of doubt after which another address that answers takes over."""
LOST_AFTER = 0.8
"""Seconds of doubt without any answer."""
MEASURE_EVERY = 10.0
SAMPLES = 3
"""Round trips of each address before they are compared; one a second until then."""
MEASURED = 3
"""Others that are measured beside the endpoint."""
FRESH = 25.0
"""Seconds for which an answer counts."""
MARGIN_SECONDS = 0.001
MARGIN_SHARE = 0.2
"""Another address must be faster by both; a better kind may be slower by less."""
STAY_SECONDS = 5.0
STAY_AFTER_FOLLOWING = 30.0
"""Two ends that judge differently must not chase each other."""


class Paths:
    """The addresses of one peer. `index` is always the session that sends: challenges travel on it."""

    def __init__(self, ctx: Context, peer: PeerId, link: Link) -> None:
        self._ctx = ctx
        self._peer = peer
        self._link = link
        self.endpoint: Endpoint | None = None
        self.proven = False
        self.own_addresses: Collection[Endpoint] | None = None
        """What the peer's interfaces have; None: it did not say."""
        self._routes: OrderedDict[Endpoint, Route] = OrderedDict()
        self._kinds: dict[Endpoint, PathKind] = {}
        self._kinds_hold_for: tuple[object, object] = (None, None)
        self._source: Endpoint | None = None
        """Where the peer's frames come from."""
        self._doubted_at: float | None = None
        self._measure_at = 0.0
        self._stay_until = 0.0

    @property
    def doubted(self) -> bool:
        """Whether it is being found out if the endpoint still works."""
        return self._doubted_at is not None

    # ------------------------------------------------------------ addresses

    def name(self, endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
        """The addresses where the peer says it is, in place of earlier ones; those that are new."""
        for route in self._routes.values():
            route.named = route.endpoint in endpoints
        fresh = tuple(endpoint for endpoint in endpoints if endpoint not in self._routes)
        for endpoint in endpoints:
            self._route(endpoint).named = True
        for route in list(self._routes.values()):
            if not (route.named or route.active or route.answered_at or route.endpoint == self.endpoint):
                del self._routes[route.endpoint]
        return fresh

    def _route(self, endpoint: Endpoint) -> Route:
        route = self._routes.get(endpoint)
        if route is None:
            if len(self._routes) >= MAX_ROUTES:
                others = [each for each in self._routes.values() if each.endpoint != self.endpoint]
                worst = min(others, key=lambda each: (each.answered_at or 0.0, each.named))
                del self._routes[worst.endpoint]
            route = self._routes[endpoint] = Route(endpoint)
        return route

    # ------------------------------------------------------------ what comes in

    def handle_handshake(self, now: Now, index: int, source: Endpoint, size: int, sent_to: Sequence[Endpoint]) -> None:
        """Something came that only a receiver of our handshake message can have made; `sent_to`: where that went."""
        if self._link is not Link.ETHERNET or tuple(sent_to) == (source,):
            self._source = source
            self._use(source)
        else:
            self._source = None  # whatever it was before: here is the peer now
            self.handle_source(now, index, source, size)

    def handle_source(self, now: Now, index: int, source: Endpoint, size: int) -> None:
        """A frame or keepalive of `size` bytes, the newest of its lane, came from `source`."""
        if self._link is not Link.ETHERNET:
            self._use(source)
            return
        moved, self._source = source != self._source, source
        if source == self.endpoint and self.proven:
            return
        route = self._route(source)
        if moved:
            route.wanted = True
        elif self.proven and not route.wanted:
            return  # it sends from there all the time, and is reached better elsewhere
        route.allowance += AMPLIFICATION_LIMIT * size
        if route.answered_since(now.boot - FRESH) and route.wanted:
            self._follow(now, route)
            return
        if not route.active:
            route.begin(now.boot)
        self._send_due(now, index, route)
        if not self.proven:
            # One more challenge is kept back for a repetition; the rest is for data.
            kept = min(route.allowance, CHALLENGE_SIZE)
            budget, route.allowance = route.allowance - kept, kept
            self._set(source, budget)

    def handle_challenge(self, now: Now, index: int, source: Endpoint, size: int, *, in_use: bool) -> None:
        """The peer challenges us from `source`, and is answered. Whatever comes from there may also lead there."""
        if in_use and (source != self._source or not self.proven):
            self.handle_source(now, index, source, size - RESPONSE_SIZE // AMPLIFICATION_LIMIT)
            return
        route = self._route(source)
        route.allowance += max(0, AMPLIFICATION_LIMIT * size - RESPONSE_SIZE)
        if not route.answered_since(now.boot - FRESH if self._doubted_at is None else self._doubted_at):
            if route.active:
                route.hurry(now.boot)
            else:
                route.begin(now.boot)
            self._send_due(now, index, route)

    def handle_response(self, now: Now, index: int, token: bytes) -> Endpoint | None:
        """A PATH_RESPONSE: the address that it proved, None if nobody asked for it."""
        for route in self._routes.values():
            if route.handle_response(now.boot, token):
                self._ctx.trials.answer(now.boot, self._peer, route.endpoint)
                self._answered(now, index, route)
                if self.proven and route.endpoint == self.endpoint:
                    self._ctx.events.append(PathMeasured(self._kind(route), route.rtts[-1]))
                return route.endpoint
        return None

    def _answered(self, now: Now, index: int, route: Route) -> None:
        if not self.proven:
            self._use(route.endpoint)
        elif route.wanted:
            self._follow(now, route)
        elif route.endpoint == self.endpoint:
            self._doubted_at = None
        route.wanted = False
        self._choose(now, index)

    def _follow(self, now: Now, route: Route) -> None:
        self._stay_until = now.boot + STAY_AFTER_FOLLOWING
        self._use(route.endpoint)

    # ------------------------------------------------------------ choice

    def _choose(self, now: Now, index: int) -> None:
        """Move to a better address that answered of late."""
        current = self._current()
        if current is None or current.rtt is None or self._doubted_at is not None or now.boot < self._stay_until:
            return
        fresh = [each for each in self._routes.values() if each.answered_since(now.boot - FRESH)]
        better = [each for each in fresh if len(each.rtts) >= SAMPLES and self._better(each, current)]
        if better and len(current.rtts) >= SAMPLES:
            best = min(better, key=lambda each: (-self._rank(each), each.rtt))
            self._move(now, index, best)

    def _better(self, other: Route, current: Route) -> bool:
        assert other.rtt is not None and current.rtt is not None
        margin = max(MARGIN_SECONDS, MARGIN_SHARE * current.rtt)
        if other.rtt + margin < current.rtt:
            return True
        return other.rtt <= current.rtt + margin and self._rank(other) > self._rank(current)

    def _rank(self, route: Route) -> int:
        return self._kind(route).rank

    def _kind(self, route: Route) -> PathKind:
        basis = (self._ctx.networks, self.own_addresses)
        if basis[0] is not self._kinds_hold_for[0] or basis[1] is not self._kinds_hold_for[1]:
            self._kinds, self._kinds_hold_for = {}, basis
        kind = self._kinds.get(route.endpoint)
        if kind is None:
            if len(self._kinds) >= 2 * MAX_ROUTES:
                self._kinds = {}
            kind = self._kinds[route.endpoint] = kind_of(route.endpoint, *basis)
        return kind

    def _move(self, now: Now, index: int, route: Route) -> None:
        """Of our own accord: the peer is told by a challenge from there."""
        self._stay_until = now.boot + STAY_SECONDS
        self._use(route.endpoint)
        route.begin(now.boot)
        self._send_due(now, index, route)

    def _current(self) -> Route | None:
        return None if self.endpoint is None else self._routes.get(self.endpoint)

    # ------------------------------------------------------------ looking

    def search(self, now: Now, index: int, endpoints: Collection[Endpoint] | None = None) -> None:
        """Challenge these addresses, or all that are known."""
        for endpoint in tuple(self._routes) if endpoints is None else endpoints:
            route = self._route(endpoint)
            if not route.active:
                route.begin(now.boot)
            self._send_due(now, index, route)

    def measure(self, now: Now, index: int) -> None:
        """Data flows: find out how good the endpoint and the best others are, if it is time to."""
        if now.boot < self._measure_at or not self.proven:
            return
        fresh = [each for each in self._routes.values() if each.answered_since(now.boot - FRESH)]
        others = sorted((each for each in fresh if each.endpoint != self.endpoint), key=lambda each: each.rtt or 0.0)
        assert self.endpoint is not None
        chosen = [self._route(self.endpoint), *others[:MEASURED]]
        young = others and any(len(each.rtts) < SAMPLES for each in chosen)
        self._measure_at = now.boot + (1.0 if young else MEASURE_EVERY)
        self.search(now, index, [each.endpoint for each in (*chosen, *self._fallen(now))])

    def _fallen(self, now: Now) -> list[Route]:
        """The best address that answered once, is named still, and is silent now, if there is one: is it back?"""
        silent = [
            each
            for each in self._routes.values()
            if each.named and each.rtts and each.endpoint != self.endpoint and not each.answered_since(now.boot - FRESH)
        ]
        return sorted(silent, key=lambda each: (-self._rank(each), each.rtt))[:1]

    def verify(self, now: Now, index: int, *, unless_answered_within: float = 0.0) -> None:
        """Find out whether the endpoint still works; the challenge keeps NATs open as well."""
        current = self._current()
        if current is not None and current.answered_since(now.boot - unless_answered_within):
            return
        if self.endpoint is not None:
            self.search(now, index, (self.endpoint,))

    def doubt(self, now: Now, index: int) -> None:
        """The endpoint does not seem to work: look everywhere at once, unless that is under way."""
        if self._doubted_at is None:
            self._doubted_at = now.boot
            for route in self._routes.values():
                route.begin(now.boot)
            self.search(now, index)

    def network_changed(self, now: Now, index: int) -> None:
        """Our own addresses or routes are others: nothing that was measured holds any more."""
        for route in self._routes.values():
            route.rtts.clear()
            route.answered_at = None
        self._doubted_at = None
        self._stay_until = self._measure_at = 0.0
        self.doubt(now, index)

    # ------------------------------------------------------------ time

    def handle_timeout(self, now: Now, index: int | None) -> bool:
        """Send what is due; True if the endpoint is lost and nothing else answers."""
        if not self._looking:
            return False  # as for most peers, each second
        if index is None:
            self._stop_looking()
            return False
        for route in list(self._routes.values()):
            if route.over(now.boot):
                self._silent(route)
            else:
                self._send_due(now, index, route)
        current = self._current()
        if current is not None and self.proven and _past(current.suspect_at, now):
            self.doubt(now, index)
        if self._doubted_at is None:
            return False
        if now.boot >= self._doubted_at + ALTERNATIVE_AFTER:
            answered = [each for each in self._routes.values() if each.answered_since(self._doubted_at)]
            if answered:
                self._doubted_at = None
                self._move(now, index, min(answered, key=lambda each: each.rtt or 0.0))
                return False
        if now.boot < self._doubted_at + LOST_AFTER:
            return False
        self._doubted_at = None
        return True

    def _silent(self, route: Route) -> None:
        """A round ended without an answer."""
        if route.wanted:
            self._source = None  # what comes from there next is news again
        route.silent = True
        route.end()
        if not (route.named or route.answered_at or route.endpoint == self.endpoint):
            del self._routes[route.endpoint]

    @property
    def _looking(self) -> bool:
        return self._doubted_at is not None or any(route.active for route in self._routes.values())

    def _stop_looking(self) -> None:
        self._doubted_at = None
        for route in self._routes.values():
            route.end()

    def deadline(self) -> float | None:
        """When `handle_timeout` has something to do."""
        if not self._looking:
            return None
        doubt = None
        if self._doubted_at is not None:
            answered = any(each.answered_since(self._doubted_at) for each in self._routes.values())
            doubt = self._doubted_at + (ALTERNATIVE_AFTER if answered else LOST_AFTER)
        elif self.proven and (current := self._current()) is not None:
            doubt = current.suspect_at
        return earliest(doubt, *(route.deadline() for route in self._routes.values()))

    # ------------------------------------------------------------ ends

    def distrust(self) -> None:
        """The session that proved the endpoint is gone or its peer is silent: look everywhere again."""
        self.proven = False
        self._stop_looking()
        for route in self._routes.values():
            route.answered_at = None

    def forget(self) -> None:
        """The peer goes."""
        self.distrust()
        if self.endpoint is not None and self._ctx.endpoints.get(self.endpoint) == self._peer:
            del self._ctx.endpoints[self.endpoint]
        self.endpoint = None
        self._routes.clear()

    # ------------------------------------------------------------ outputs

    def statuses(self, now: Now) -> tuple[PathStatus, ...]:
        """The endpoint first, then the others that answered of late, the fastest first."""
        fresh = [each for each in self._routes.values() if each.answered_since(now.boot - FRESH)]
        others = sorted((each for each in fresh if each.endpoint != self.endpoint), key=lambda each: each.rtt or 0.0)
        current = self._current()
        mine = () if self.endpoint is None else (current or Route(self.endpoint),)
        return tuple(self._status(each) for each in (*mine, *others))

    def _status(self, route: Route) -> PathStatus:
        newest = route.rtts[-1] if route.rtts else None
        return PathStatus(self._kind(route).value, route.endpoint, route.rtt, newest, route.answered_at)

    def _use(self, endpoint: Endpoint) -> None:
        self._doubted_at = None
        if self.proven and self.endpoint == endpoint:
            return
        if self.proven:
            self._ctx.count("roamed")
        if self._link is Link.ETHERNET:
            self._route(endpoint).allowance = 0
        self._set(endpoint, budget=None)
        self._ctx.signals.append(PathMoved(self._peer))

    def _set(self, endpoint: Endpoint, budget: int | None) -> None:
        known = self._ctx.endpoints
        if endpoint != self.endpoint:
            if self.endpoint is not None and known.get(self.endpoint) == self._peer:
                del known[self.endpoint]
            self.endpoint = endpoint
        known[endpoint] = self._peer
        self.proven = budget is None
        self._ctx.commands.append(SetEndpoint(self._peer, endpoint, budget))

    def _send_due(self, now: Now, index: int, route: Route) -> None:
        if not route.due(now.boot):
            return
        token = self._ctx.entropy(TOKEN_SIZE)
        payload = PathChallenge(token, in_use=self.proven and route.endpoint == self.endpoint).encode()
        size = MIN_TRANSPORT_SIZE + len(payload)
        route.sent(now.boot, token)
        if route.named or (self.proven and route.endpoint == self.endpoint) or route.allowance >= size:
            route.allowance = max(0, route.allowance - size)
            self._ctx.trials.challenge(now.boot, self._peer, route.endpoint)
            self._ctx.commands.append(SendControl(index, payload, route.endpoint))


def _past(deadline: float | None, now: Now) -> bool:
    return deadline is not None and now.boot >= deadline
