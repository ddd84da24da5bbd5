"""Everybody we know, reachable or not: verified members of the cluster, and configured pairs that proved themselves.

Answers "who has this address or MAC" for discovery, "which addresses may this peer use" for the source guard, and "who
gets our broadcasts" for the flood set. Keyed by X25519 key; a second Ed25519 key for the same one is refused (A and -A
share it). Two claims to one address are settled by the rule of `vip.py`, but a claim that a Nucleus let stand is never
lost to one that only its owner told us: the registry decides, and has not heard of that. The loser keeps its ULA only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from omninervous.core.clock import Now
from omninervous.core.dataplane import PeerId
from omninervous.core.events import CachedMember
from omninervous.core.identity import mac_of, ula_of
from omninervous.core.membership import Membership, verify
from omninervous.core.natview import count_of
from omninervous.core.ring import ring_position
from omninervous.core.vip import Contender, wins
from omninervous.errors import RemoteError
from omninervous.wire.address import Endpoint
from omninervous.wire.membership import VipClaim
from omninervous.wire.signalling import PeerEntry

__all__ = ["Known", "Roster"]


@dataclass(slots=True)
class Known:
    """One member or pair."""

    key: PeerId
    identity: bytes
    mac: bytes
    ula: IPv6Address
    position: bytes
    """On the ring."""
    claim: VipClaim | None = None
    membership: Membership | None = None
    """None: a configured pair."""
    name: str = ""
    signalled: tuple[Endpoint, ...] = ()
    """Where the Nucleus, or the cache, says it is."""
    own_addresses: tuple[Endpoint, ...] | None = None
    """Those of `signalled` that its own interfaces have; None: no Nucleus has told."""
    reached: Endpoint | None = None
    """Where a session last was."""
    views: dict[str, None] = field(default_factory=dict)
    """Names of the Nuclei in whose view it lives."""
    registered: VipClaim | None = None
    """The claim that a Nucleus told of last: it has let it stand."""

    @property
    def vouched(self) -> bool:
        """Somebody else than the member itself says that its claim holds."""
        return self.membership is None or (bool(self.views) and self.claim == self.registered)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where to try, best first."""
        own = () if self.reached is None else (self.reached,)
        return tuple(dict.fromkeys((*own, *self.signalled)))


class Roster:
    """The tables. `changed` names keys whose addresses changed since it was last emptied."""

    def __init__(self, own_x25519: PeerId, cluster_public: bytes | None, capacity: int) -> None:
        self._own = own_x25519
        self._own_position = ring_position(own_x25519)
        self._cluster_public = cluster_public
        self._capacity = capacity
        self._known: dict[PeerId, Known] = {}
        self._by_mac: dict[bytes, PeerId] = {}
        self._by_ula: dict[IPv6Address, PeerId] = {}
        self._by_vip: dict[IPv4Address, list[PeerId]] = {}  # the first one holds it
        self.changed: dict[PeerId, None] = {}
        self.flood_dirty = True
        self.dirty = False
        """The members differ from what was last persisted."""

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: PeerId) -> Known | None:
        """Who has this X25519 key."""
        return self._known.get(key)

    def by_mac(self, mac: bytes) -> Known | None:
        """Whose omni0 has this MAC."""
        key = self._by_mac.get(mac)
        return None if key is None else self._known[key]

    def holder(self, address: IPv4Address | IPv6Address) -> Known | None:
        """Who holds this VIP or ULA."""
        if isinstance(address, IPv4Address):
            holders = self._by_vip.get(address)
            return self._known[holders[0]] if holders else None
        key = self._by_ula.get(address)
        return None if key is None else self._known[key]

    def addresses(self, known: Known) -> tuple[IPv4Address | IPv6Address, ...]:
        """What it may use as a source."""
        if known.claim is not None and self._by_vip[known.claim.address][0] == known.key:
            return (known.claim.address, known.ula)
        return (known.ula,)

    # ------------------------------------------------------------ learning

    def learn(self, now: Now, raw: bytes, sender: PeerId | None = None) -> Known | None:
        """A membership from anywhere, or of the peer that sent it. None: it is our own. RemoteError: it does not verify
        (`membership_*`), is older than what we know (`membership_old`), claims a known key by another identity
        (`second_identity`), or is not the sender's (`membership_of_another`)."""
        membership = self._verified(now, raw)
        if sender not in (None, membership.x25519):
            raise RemoteError("membership_of_another")
        return self._learn(membership)

    def _verified(self, now: Now, raw: bytes) -> Membership:
        if self._cluster_public is None:
            raise RemoteError("no_cluster")
        return verify(raw, self._cluster_public, now.wall)

    def _learn(self, membership: Membership) -> Known | None:
        if membership.x25519 == self._own:
            return None
        known = self._known.get(membership.x25519)
        if known is not None and known.identity != membership.identity:
            raise RemoteError("second_identity")
        if known is not None and known.membership is not None:
            if known.membership.raw == membership.raw:
                return known
            if membership.serial <= known.membership.serial:
                raise RemoteError("membership_old")
        if known is None:
            known = self._add(membership.x25519, membership.identity)
        known.membership = membership
        known.name = membership.name or ""
        self.dirty = True
        self._claim(known, membership.claim)
        return known

    def learn_pair(self, key: PeerId, identity: bytes, claim: VipClaim | None) -> Known:
        """A configured pair proved its identity; `claim` None: it holds no address now."""
        known = self._known.get(key) or self._add(key, identity)
        if known.membership is None:
            self._claim(known, claim)
        return known

    def learn_entry(self, now: Now, entry: PeerEntry) -> Known | None:
        """What a Nucleus tells of a member; errors as `learn`. With an old membership, where it is still counts."""
        membership = self._verified(now, entry.membership)
        try:
            known = self._learn(membership)
        except RemoteError as error:
            if error.reason != "membership_old":
                raise
            known = self._known[membership.x25519]
        if known is not None:
            self._register(known, membership.claim)
            reflexive = () if entry.reflexive is None else (entry.reflexive,)
            known.signalled = (*reflexive, *entry.candidates)
            hosts = [each.host for each in reflexive]
            count = count_of(each for each in known.signalled if each.host in hosts)
            known.own_addresses = tuple(each for each in entry.candidates if each not in count)
        return known

    def mark(self, key: PeerId, view: str, live: bool) -> None:
        """A Nucleus's view gained or lost a member."""
        known = self._known.get(key)
        if known is None or (view in known.views) == live:
            return
        if live:
            known.views[view] = None
        else:
            del known.views[view]
        if known.claim is not None and len(self._by_vip[known.claim.address]) > 1:
            self._settle(known.claim.address)
        self.flood_dirty = True

    def forget(self, key: PeerId) -> None:
        """Remove from all tables."""
        known = self._known.pop(key, None)
        if known is None:
            return
        self._unclaim(known)
        if self._by_mac.get(known.mac) == key:
            del self._by_mac[known.mac]
        if self._by_ula.get(known.ula) == key:
            del self._by_ula[known.ula]
        self.changed[key] = None
        self.flood_dirty = self.dirty = True

    def expired(self, now: Now) -> list[PeerId]:
        """Members whose membership is over."""
        return [
            known.key
            for known in self._known.values()
            if known.membership is not None and now.wall >= known.membership.expires_at
        ]

    def surplus(self) -> list[PeerId]:
        """Members to forget because there are too many: the oldest of those that no view holds."""
        excess = len(self._known) - self._capacity
        if excess <= 0:
            return []
        idle = [known.key for known in self._known.values() if known.membership is not None and not known.views]
        return idle[:excess]

    # ------------------------------------------------------------ answers

    def flood(self, *, only_live: bool, side: int, beside: Collection[PeerId] = ()) -> list[PeerId]:
        """The members next to us on the ring, `side` each way, in ring order. `beside`: these count as live, too."""
        ring = sorted(
            (known.position, known.key)
            for known in self._known.values()
            if known.membership is not None and (known.views or not only_live or known.key in beside)
        )
        if len(ring) <= 2 * side:
            return [key for _, key in ring]
        own = bisect_left(ring, (self._own_position, b""))
        return [ring[place % len(ring)][1] for place in range(own - side, own + side)]

    def cache(self) -> tuple[CachedMember, ...]:
        """Every member, for the disk."""
        self.dirty = False
        return tuple(
            CachedMember(known.membership.raw, known.endpoints)
            for known in self._known.values()
            if known.membership is not None
        )

    def pairs_and_members(self) -> list[Known]:
        """Everybody, the first learned first."""
        return list(self._known.values())

    # ------------------------------------------------------------ inside

    def _add(self, key: PeerId, identity: bytes) -> Known:
        known = self._known[key] = Known(key, identity, mac_of(identity), ula_of(identity), ring_position(key))
        # Two identities with one MAC would be a found hash collision: the first stays.
        self._by_mac.setdefault(known.mac, key)
        self._by_ula.setdefault(known.ula, key)
        self.changed[key] = None
        self.flood_dirty = True
        return known

    def _register(self, known: Known, claim: VipClaim) -> None:
        """A Nucleus let this claim stand."""
        if claim != known.registered:
            known.registered = claim
            if known.claim is not None:
                self._settle(known.claim.address)

    def _claim(self, known: Known, claim: VipClaim | None) -> None:
        if known.claim == claim:
            return
        self._unclaim(known)
        known.claim = claim
        self.changed[known.key] = None
        if claim is not None:
            self._by_vip.setdefault(claim.address, []).append(known.key)
            self._settle(claim.address)

    def _unclaim(self, known: Known) -> None:
        if known.claim is None:
            return
        holders = self._by_vip[known.claim.address]
        holders.remove(known.key)
        if holders:
            self._settle(known.claim.address, before=known.key)
        else:
            del self._by_vip[known.claim.address]
        known.claim = None

    def _settle(self, address: IPv4Address, before: PeerId | None = None) -> None:
        """Put the strongest claimant of an address in front."""
        holders = self._by_vip[address]
        old = before or holders[0]
        for key in holders[1:]:
            if self._stronger(self._known[key], self._known[holders[0]]):
                holders.remove(key)
                holders.insert(0, key)
        if holders[0] != old:
            self.changed[old] = self.changed[holders[0]] = None

    def _stronger(self, a: Known, b: Known) -> bool:
        assert a.claim is not None and b.claim is not None
        if a.vouched != b.vouched:
            return a.vouched
        ours, theirs = a.claim.explicit, b.claim.explicit
        return wins(Contender(a.identity, ours, a.vouched), Contender(b.identity, theirs, b.vouched))
