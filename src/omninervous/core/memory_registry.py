"""The registry in this process's memory.

Each cluster has indexes by address, MAC and key, and a ring (`core.ring`), from which it tells an edge what is new
since any version. A heartbeat that finds nothing new is O(1); one that does walks some 130 slots; a query is O(1);
expiry is O(1) amortised, since all members live equally long after they were last heard.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from omninervous.core.membership import Membership
from omninervous.core.registry import (
    INTEREST_LIMIT,
    MAX_MEMBERS,
    MEMBER_TIMEOUT,
    ClusterId,
    Lookup,
    Member,
    Page,
    Registered,
    Registration,
    RegistryStats,
    Since,
)
from omninervous.core.ring import LOG_SIZE, POSITION_SIZE, Ring
from omninervous.core.vip import Contender, wins
from omninervous.wire.address import Endpoint
from omninervous.wire.signalling import CURSOR_SIZE, PeerEntry, RegisterStatus
from omninervous.wire.tlv import FIELD_HEADER_SIZE

__all__ = ["MemoryRegistry"]

_VERSION_SIZE = 8
_LEFT_SIZE = FIELD_HEADER_SIZE + 32  # an X25519 key
_BEGINNING = bytes(POSITION_SIZE)
assert _VERSION_SIZE + POSITION_SIZE == CURSOR_SIZE


class MemoryRegistry:
    """The embedded store. `epoch`: random and not 0, so that versions of an earlier start mean nothing."""

    def __init__(self, epoch: int, max_members: int = MAX_MEMBERS, log_size: int = LOG_SIZE) -> None:
        """`log_size`: departures that each cluster remembers."""
        assert epoch > 0
        self._log_size = log_size
        self._epoch = epoch
        self._max_members = max_members
        self._version = 0  # one counter for all clusters: a version never comes twice, not even in a cluster made anew
        self._clusters: dict[ClusterId, _Cluster] = {}
        self._names: dict[str, dict[ClusterId, None]] = {}
        self._by_age: OrderedDict[_Record, None] = OrderedDict()  # silent for longest first

    def register(self, now_boot: float, cluster: ClusterId, registration: Registration) -> Registered:
        membership = registration.membership
        found = self._clusters.get(cluster)
        record = found.members.get(membership.x25519) if found is not None else None
        if record is not None and record.member.membership.identity != membership.identity:
            return Registered(RegisterStatus.REFUSED)
        if record is None and len(self._by_age) >= self._max_members:
            return Registered(RegisterStatus.FULL)
        home = found or self._create(cluster)
        holder = home.by_address.get(membership.claim.address.packed)
        displaced = None
        if holder is not None and holder is not record:
            if wins(_contender(holder.member.membership, holds=True), _contender(membership, holds=False)):
                return Registered(RegisterStatus.VIP_TAKEN, holder=holder.member.entry)
            holder.member = replace(holder.member, displaced_by=membership.x25519)
            displaced = holder.member.key
        endpoint = registration.endpoint or (None if record is None else record.member.entry.reflexive)
        entry = PeerEntry(membership.raw, endpoint, registration.candidates)
        member = Member(membership, registration.boot_id, entry)
        if record is None:
            self._version += 1
            record = _Record(home, member, len(entry.encode()), now_boot, resync=self._version)
            home.ring.join(member.key, self._version)
            home.version = self._version
        else:
            home.unindex(record)
            self._update(record, member)
            if record.interest:
                record.interest.clear()
                self._resync(record)
        home.index(record)
        self._heard(now_boot, record)
        return Registered(RegisterStatus.OK, displaced=displaced)

    def refresh(
        self, now_boot: float, cluster: ClusterId, key: bytes, endpoint: Endpoint | None, candidates: Sequence[Endpoint]
    ) -> Member | None:
        record = self._record(cluster, key)
        if record is None:
            return None
        self._heard(now_boot, record)
        entry = record.member.entry
        endpoint = endpoint or entry.reflexive
        if endpoint != entry.reflexive or tuple(candidates) != entry.candidates:
            changed = PeerEntry(entry.membership, endpoint, tuple(candidates))
            self._update(record, replace(record.member, entry=changed))
        return record.member

    def page(self, cluster: ClusterId, key: bytes, since: Since, limit: int) -> Page:
        record = self._record(cluster, key)
        assert record is not None, "a page for nobody"
        home = record.home
        if since == (self._epoch, home.version, None):
            return Page(self._epoch, home.version, home.version, (), (), False, None)
        start, upto, after = self._resume(record, since)
        joined: list[PeerEntry] = []
        left: list[bytes] = []
        last = after
        for step in home.ring.delta(key, start, upto, record.interest):
            if step.position <= after:
                continue
            about = home.members[step.key] if step.present else None
            limit -= _LEFT_SIZE if about is None else FIELD_HEADER_SIZE + about.entry_size
            if limit < 0:
                cursor = upto.to_bytes(_VERSION_SIZE, "big") + last
                return Page(self._epoch, start, upto, tuple(joined), tuple(left), True, cursor)
            last = step.position
            if about is None:
                left.append(step.key)
            else:
                joined.append(about.member.entry)
        return Page(self._epoch, start, upto, tuple(joined), tuple(left), upto < home.version, None)

    def member(self, cluster: ClusterId, key: bytes) -> Member | None:
        record = self._record(cluster, key)
        return None if record is None else record.member

    def find(self, cluster: ClusterId, asker: bytes, lookup: Lookup) -> Member | None:
        home = self._clusters.get(cluster)
        asking = home.members.get(asker) if home is not None else None
        if home is None or asking is None:
            return None
        if lookup.key is not None:
            record = home.members.get(lookup.key)
        elif lookup.mac is not None:
            record = home.by_mac.get(lookup.mac)
        else:
            record = home.by_address.get(lookup.address or b"")
        wanted = lookup.key if record is None else record.member.key
        if wanted is None or wanted == asker:
            return None
        self._remember(asking, wanted)
        return None if record is None else record.member

    def leave(self, now_boot: float, cluster: ClusterId, key: bytes) -> bool:
        record = self._record(cluster, key)
        if record is None:
            return False
        self._remove(now_boot, record)
        return True

    def expire(self, now_boot: float) -> int:
        count = 0
        while self._by_age:
            oldest = next(iter(self._by_age))
            if oldest.heard_at + MEMBER_TIMEOUT > now_boot:
                break
            self._remove(now_boot, oldest)
            count += 1
        return count

    def next_expiry(self) -> float | None:
        return next(iter(self._by_age)).heard_at + MEMBER_TIMEOUT if self._by_age else None

    def other_keys(self, cluster: ClusterId) -> int:
        alike = self._names.get(cluster.name, {})
        return len(alike) - (cluster in alike)

    def stats(self) -> RegistryStats:
        return RegistryStats(len(self._clusters), len(self._by_age))

    # ------------------------------------------------------------ inside

    def _record(self, cluster: ClusterId, key: bytes) -> _Record | None:
        home = self._clusters.get(cluster)
        return None if home is None else home.members.get(key)

    def _create(self, cluster: ClusterId) -> _Cluster:
        home = _Cluster(cluster, self._version, Ring(self._version, self._log_size))
        self._clusters[cluster] = home
        self._names.setdefault(cluster.name, {})[cluster] = None
        return home

    def _heard(self, now_boot: float, record: _Record) -> None:
        record.heard_at = now_boot
        self._by_age[record] = None
        self._by_age.move_to_end(record)

    def _update(self, record: _Record, member: Member) -> None:
        """Replace what is known of a live member; others are told if it concerns them."""
        if member.entry != record.member.entry:
            self._version += 1
            record.home.ring.change(member.key, self._version)
            record.home.version = self._version
            record.entry_size = len(member.entry.encode())
        record.member = member

    def _remove(self, now_boot: float, record: _Record) -> None:
        home = record.home
        del self._by_age[record]
        del home.members[record.member.key]
        home.unindex(record)
        if not home.members:
            # Nobody is left who could ask what is new; whoever comes later begins with a snapshot.
            del self._clusters[home.id], self._names[home.id.name][home.id]
            if not self._names[home.id.name]:
                del self._names[home.id.name]
            return
        self._version += 1
        home.ring.leave(now_boot, record.member.key, self._version)
        home.version = self._version

    def _resume(self, record: _Record, since: Since) -> tuple[int, int, bytes]:
        """(from version, to version, position after which to go on)."""
        home = record.home
        oldest = max(home.ring.floor, record.resync)
        start = (0, home.version, _BEGINNING)
        if since.epoch != self._epoch or (since.version and not oldest <= since.version <= home.version):
            return start
        if since.cursor is None:
            return since.version, home.version, _BEGINNING
        upto = int.from_bytes(since.cursor[:_VERSION_SIZE], "big")
        if not max(oldest, since.version) <= upto <= home.version:
            return start
        return since.version, upto, since.cursor[_VERSION_SIZE:]

    def _remember(self, asking: _Record, key: bytes) -> None:
        """Add to an edge's interest."""
        interest = asking.interest
        interest.pop(key, None)
        interest[key] = None
        if len(interest) > INTEREST_LIMIT:
            for forgotten in list(interest)[: INTEREST_LIMIT // 2]:
                del interest[forgotten]
            self._resync(asking)

    def _resync(self, record: _Record) -> None:
        """Whatever version this edge has (no edge has the new one yet), its next page begins a snapshot."""
        self._version += 1
        record.resync = record.home.version = self._version


@dataclass(slots=True, eq=False)
class _Record:
    """A live member with what is remembered for it."""

    home: _Cluster
    member: Member
    entry_size: int
    heard_at: float
    resync: int
    """Version before which nothing counts: this edge's view has to begin anew."""
    interest: dict[bytes, None] = field(default_factory=dict)
    """X25519 keys it found by query, the latest last."""


@dataclass(slots=True, eq=False)
class _Cluster:
    id: ClusterId
    version: int
    ring: Ring
    members: dict[bytes, _Record] = field(default_factory=dict)
    by_address: dict[bytes, _Record] = field(default_factory=dict)
    by_mac: dict[bytes, _Record] = field(default_factory=dict)

    def index(self, record: _Record) -> None:
        membership = record.member.membership
        self.members[membership.x25519] = record
        self.by_address[membership.claim.address.packed] = record
        # Derived from the key: a second owner would be a found hash collision, and gets nothing by it.
        self.by_address.setdefault(membership.ula.packed, record)
        self.by_mac.setdefault(membership.mac, record)

    def unindex(self, record: _Record) -> None:
        membership = record.member.membership
        for index, address in (
            (self.by_address, membership.claim.address.packed),
            (self.by_address, membership.ula.packed),
            (self.by_mac, membership.mac),
        ):
            if index.get(address) is record:
                del index[address]


def _contender(membership: Membership, *, holds: bool) -> Contender:
    return Contender(membership.identity, membership.claim.explicit, holds)
