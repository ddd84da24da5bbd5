"""The sessions of a Nucleus: bounded, by index and by static key, each with the address that its edge is reached at.

An address is *proven* by a round trip: a packet that authenticates from where the handshake's response went, if it went
nowhere else, or a HEARTBEAT from it that returns the token of a PROBE. Until then it gets at most three times the bytes
that came from it, so that nobody is flooded in another's name. The newest authentic packet moves the address (roaming).

What goes first when a table is full: the oldest session that its edge has not used yet, then the oldest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from omninervous.core.clock import Entropy
from omninervous.core.registry import ClusterId
from omninervous.core.session import Session
from omninervous.wire.address import Endpoint

__all__ = ["AMPLIFICATION_LIMIT", "SESSION_LIFETIME", "EdgeSession", "SessionTable"]

SESSION_LIFETIME = 180.0
"""Seconds after its handshake for which a session is used; the edge makes a new one at 120."""
UNUSED_LIFETIME = 10.0
"""Seconds that an edge has for its first packet."""
SESSIONS_PER_KEY = 3
AMPLIFICATION_LIMIT = 3
_INDEX_SIZE = 4


@dataclass(slots=True, eq=False)
class EdgeSession:
    """One session with an edge, and what the Nucleus knows about the edge behind it."""

    session: Session
    created_at: float
    endpoint: Endpoint
    """Source of the newest authentic packet; before the first one, of the initiation."""
    initiation: bytes
    """What mac1 signed, mac1 included: a copy of this initiation gets a copy of the response."""
    response: bytes
    answered: tuple[Endpoint, ...]
    """Where the response went."""
    used: bool = False
    """A packet authenticated: the edge has the keys."""
    proven: bool = False
    budget: int = 0
    """While the endpoint is not proven: bytes that may still be sent to it."""
    probe: bytes | None = None
    """Token of the newest PROBE."""
    probed_at: float = 0.0
    cluster: ClusterId | None = None
    """Where the edge is registered."""
    boot_id: bytes | None = None
    """Which start of the edge's daemon this is; None until it registers or a HEARTBEAT goes on with an older one's."""

    @property
    def key(self) -> bytes:
        """X25519 key of the edge."""
        return self.session.peer

    def heard(self, source: Endpoint, size: int, *, newest: bool) -> None:
        """An authentic packet of `size` bytes (UDP payload) came from `source`."""
        if not self.used:
            self.used = True
            # A copy of the initiation makes the response go to where the copy came from: only if it went to one address
            # alone is who has the keys there.
            self.endpoint, self.proven = source, set(self.answered) == {source}
            self.initiation = self.response = b""
        elif newest and source != self.endpoint:
            self.endpoint, self.proven, self.budget, self.probe = source, False, 0, None
        if not self.proven and source == self.endpoint:
            self.budget += AMPLIFICATION_LIMIT * size

    def spend(self, size: int) -> bool:
        """Whether a datagram of that size may go to the endpoint; it is taken off the budget."""
        if self.proven:
            return True
        if self.budget < size:
            return False
        self.budget -= size
        return True


class SessionTable:
    """All sessions, the oldest first."""

    __slots__ = ("_by_index", "_by_initiation", "_by_key", "_capacity", "_endpoints", "_unused")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._by_index: OrderedDict[int, EdgeSession] = OrderedDict()
        self._by_key: dict[bytes, list[EdgeSession]] = {}  # oldest first
        self._unused: OrderedDict[int, EdgeSession] = OrderedDict()
        self._by_initiation: dict[bytes, EdgeSession] = {}  # the unused ones
        self._endpoints: dict[Endpoint, int] = {}  # proven ones, and how many sessions are there

    def __len__(self) -> int:
        return len(self._by_index)

    def __iter__(self) -> Iterator[EdgeSession]:
        return iter(self._by_index.values())

    def at(self, index: int) -> EdgeSession | None:
        """The session with this local index."""
        return self._by_index.get(index)

    def of_key(self, key: bytes) -> tuple[EdgeSession, ...]:
        """The sessions of an edge that it has used, the newest first."""
        return tuple(entry for entry in reversed(self._by_key.get(key, ())) if entry.used)

    def of_initiation(self, signed: bytes) -> EdgeSession | None:
        """The unused session that an initiation with these signed bytes made."""
        return self._by_initiation.get(signed)

    def knows(self, endpoint: Endpoint) -> bool:
        """Whether an edge has proven to receive there."""
        return endpoint in self._endpoints

    def free_index(self, entropy: Entropy) -> int:
        """A random index that no session has."""
        while True:
            index = int.from_bytes(entropy(_INDEX_SIZE), "big")
            if index not in self._by_index:
                return index

    def add(self, entry: EdgeSession) -> None:
        """A handshake was answered. Makes room by the rules above, and keeps at most three sessions of one key."""
        siblings = self._by_key.setdefault(entry.key, [])
        if len(siblings) >= SESSIONS_PER_KEY:
            self.remove(next((each for each in siblings if not each.used), siblings[0]))
        if len(self._by_index) >= self._capacity:
            self.remove(next(iter(self._unused.values()), None) or next(iter(self._by_index.values())))
        index = entry.session.local_index
        self._by_index[index] = self._unused[index] = entry
        self._by_key.setdefault(entry.key, []).append(entry)
        self._by_initiation[entry.initiation] = entry

    def heard(self, entry: EdgeSession, source: Endpoint, size: int, *, newest: bool) -> None:
        """See EdgeSession.heard."""
        if entry.proven and entry.endpoint == source:
            return
        if not entry.used:
            del self._unused[entry.session.local_index], self._by_initiation[entry.initiation]
        self._uncount(entry)
        entry.heard(source, size, newest=newest)
        self._count(entry)

    def prove(self, entry: EdgeSession) -> None:
        """The edge returned the token of a PROBE to its endpoint."""
        self._uncount(entry)
        entry.proven, entry.probe = True, None
        self._count(entry)

    def remove(self, entry: EdgeSession) -> None:
        """Forget a session and wipe its keys."""
        index = entry.session.local_index
        del self._by_index[index]
        if not entry.used:
            del self._unused[index], self._by_initiation[entry.initiation]
        siblings = self._by_key[entry.key]
        siblings.remove(entry)
        if not siblings:
            del self._by_key[entry.key]
        self._uncount(entry)
        entry.session.wipe()

    def expire(self, now_boot: float) -> None:
        """Remove what is too old, or was not used in time."""
        for table, lifetime in ((self._unused, UNUSED_LIFETIME), (self._by_index, SESSION_LIFETIME)):
            while table:
                oldest = next(iter(table.values()))
                if oldest.created_at + lifetime > now_boot:
                    break
                self.remove(oldest)

    def next_expiry(self) -> float | None:
        """Boot-time second at which `expire` has something to do."""
        ends = [
            next(iter(table.values())).created_at + lifetime
            for table, lifetime in ((self._unused, UNUSED_LIFETIME), (self._by_index, SESSION_LIFETIME))
            if table
        ]
        return min(ends, default=None)

    def _count(self, entry: EdgeSession) -> None:
        if entry.proven:
            self._endpoints[entry.endpoint] = self._endpoints.get(entry.endpoint, 0) + 1

    def _uncount(self, entry: EdgeSession) -> None:
        if entry.proven:
            left = self._endpoints[entry.endpoint] - 1
            if left:
                self._endpoints[entry.endpoint] = left
            else:
                del self._endpoints[entry.endpoint]
