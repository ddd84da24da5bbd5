"""Who is in which cluster: what a Nucleus knows, behind an interface that a shared store can fulfil too.

`Registry` is the interface. Its arguments and results are values: nothing handed out changes later, nothing handed in
is kept by reference, and no method calls back. A store that several Nuclei share can therefore answer from a replica
that is fed by a stream of changes, or batch the calls of one wake-up into one round trip.

The embedded store is `core.memory_registry`.

What an edge is told of: its flood set (`core.ring`), and its interest: members that it found by query since it
registered, and keys that it asked for in vain, the last INTEREST_LIMIT of both. When the interest is forgotten (the
older half when it overflows, all of it when the edge registers again), the edge's next page begins a snapshot, which
tells it so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from omninervous.core.membership import Membership
from omninervous.wire.address import Endpoint
from omninervous.wire.signalling import PeerEntry, RegisterStatus

__all__ = [
    "INTEREST_LIMIT",
    "MAX_MEMBERS",
    "MEMBER_TIMEOUT",
    "ClusterId",
    "Lookup",
    "Member",
    "Page",
    "Registered",
    "Registration",
    "Registry",
    "RegistryStats",
    "Since",
]

MEMBER_TIMEOUT = 90.0
"""Seconds without a word after which a member counts as crashed."""
INTEREST_LIMIT = 256
"""Queried members per edge."""
MAX_MEMBERS = 200_000
"""Members of all clusters together."""


class ClusterId(NamedTuple):
    """One registry of a Nucleus. Two clusters of one name under two keys know nothing of each other."""

    name: str
    public: bytes
    """Cluster public key (Ed25519)."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What an edge registers with."""

    membership: Membership
    """Verified against the cluster's key."""
    boot_id: bytes
    endpoint: Endpoint | None
    """Where its datagrams come from; None: that is not proven."""
    candidates: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """A live member."""

    membership: Membership
    boot_id: bytes
    entry: PeerEntry
    """What others are told."""
    displaced_by: bytes | None = None
    """X25519 key of the stronger claim that took its VIP; it is to come back with another one."""

    @property
    def key(self) -> bytes:
        """X25519 key."""
        return self.membership.x25519


@dataclass(frozen=True, slots=True)
class Registered:
    """The outcome of a registration: OK, VIP_TAKEN, REFUSED (the key is a known one's other half) or FULL."""

    status: RegisterStatus
    holder: PeerEntry | None = None
    """VIP_TAKEN: who holds the address."""
    displaced: bytes | None = None
    """OK: X25519 key of the member that lost its address to this one."""


class Since(NamedTuple):
    """How far an edge got, as its HEARTBEAT says. (0, 0, None): it knows nothing."""

    epoch: int
    version: int
    cursor: bytes | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of the way from the version `since` to the version `version`."""

    epoch: int
    since: int
    """0: a snapshot; what it does not name is not in the view."""
    version: int
    joined: tuple[PeerEntry, ...]
    left: tuple[bytes, ...]
    more: bool
    """With a cursor: ask on from the same version with it. Without one: this page was the last one on the way to
    `version`, and there is something newer already."""
    cursor: bytes | None


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a query names: exactly one field is set."""

    address: bytes | None = None
    """VIP (4 bytes) or ULA (16 bytes)."""
    mac: bytes | None = None
    key: bytes | None = None
    """X25519."""


class RegistryStats(NamedTuple):
    """Totals."""

    clusters: int
    """With at least one live member."""
    edges: int


class Registry(Protocol):
    """The store of a Nucleus. `now_boot`: seconds on the boot-time clock."""

    def register(self, now_boot: float, cluster: ClusterId, registration: Registration) -> Registered:
        """Add a member, or replace what is known of it; its interest begins anew. Whether the boot id may change is for
        the caller to say."""
        ...

    def refresh(
        self, now_boot: float, cluster: ClusterId, key: bytes, endpoint: Endpoint | None, candidates: Sequence[Endpoint]
    ) -> Member | None:
        """A member was heard. `endpoint` None: still where it was. None: there is no such member."""
        ...

    def page(self, cluster: ClusterId, key: bytes, since: Since, limit: int) -> Page:
        """What the live member `key` is to be told, in at most `limit` bytes of fields. An unknown or forgotten
        version gives a snapshot. A `limit` below the size of one entry may give an empty page with a cursor."""
        ...

    def member(self, cluster: ClusterId, key: bytes) -> Member | None:
        """The live member with this key."""
        ...

    def find(self, cluster: ClusterId, asker: bytes, lookup: Lookup) -> Member | None:
        """The live member that a query names, other than the asker; the asker will be told of its changes. So it will
        if the query names a key that is not there: it will be told when that comes."""
        ...

    def leave(self, now_boot: float, cluster: ClusterId, key: bytes) -> bool:
        """A member says that it goes; whether it was there."""
        ...

    def expire(self, now_boot: float) -> int:
        """Drop the members that were silent for too long; how many."""
        ...

    def next_expiry(self) -> float | None:
        """Boot-time second of the next one, None without members."""
        ...

    def other_keys(self, cluster: ClusterId) -> int:
        """How many clusters of the same name have members under other cluster keys."""
        ...

    def stats(self) -> RegistryStats:
        """Totals."""
        ...
