"""The ring of a cluster's members, and which of them an edge must be told about since a version.

Members stand on a ring in the order of a hash of their keys. The *flood set* of a member is its 32 nearest live ones on
each side (all others, if there are no more than 64): symmetric, balanced, and known to every Nucleus without a word
between them. Every change raises the cluster's version. A slot remembers the versions of its own last changes, so
that what an edge knew at version V follows from V alone; nothing is kept of what was sent to whom.

For an edge X and a version V, walking from X to either side:

    certain(s)    s was live at V             joined <= V < left
    possible(s)   it may have been            certain, or an earlier stay of it ended after V
    known(V)      live since V, with fewer than 32 possible slots between X and it: X was told of it, without doubt
    held(V)       possible, with fewer than 32 certain slots between X and it: all that X can still hold

**Invariant**: an edge that has applied everything up to V holds every slot of known(V), and none outside of held(V)
(and its interest, below). So the way from V to U is to send known(U) without the unchanged part of known(V), and to
name held(V) without held(U) as left. As time goes on, known(V) only shrinks and held(V) only grows: a page computed
late is still right, and the invariant does not ask that pages of one delta are made at one instant.

The edge's *interest* is what it asked for by query: it is told of the changes of those keys wherever they stand.

Version 0 is "nothing": known(0) and held(0) are empty, and the way from it is a snapshot.

Most changes concern nobody near X. The last RECENT of them are listed, so that this is seen without a walk: when none
since V lies between X's outermost flood neighbours of now, all of them were there at V, unchanged, and nobody else.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["FLOOD_SIDE", "LOG_SECONDS", "LOG_SIZE", "POSITION_SIZE", "Change", "Ring", "flood_set", "ring_position"]

FLOOD_SIDE = 32
"""Flood neighbours on each side."""
POSITION_SIZE = 24
LOG_SIZE = 4096
"""Departures that are remembered."""
RECENT = 256
"""Changes of any kind that are listed."""
LOG_SECONDS = 300.0
"""And for how long: an edge that was silent for 90 s has to register again anyway."""

_LABEL = b"omninervous ring v1"


def ring_position(key: bytes) -> bytes:
    """Where the owner of an X25519 key stands: 24 bytes, compared as a big-endian number."""
    return hashlib.blake2s(_LABEL + key, digest_size=POSITION_SIZE).digest()


def flood_set(own: bytes, keys: Collection[bytes]) -> list[bytes]:
    """The members of `keys` that are nearest to `own` on either side, in ring order.

    Of an edge's complete view this gives exactly its flood set: the view holds all of it, and whatever else it holds
    stands farther away.
    """
    start = ring_position(own)
    others = sorted((ring_position(key), key) for key in keys if key != own)
    split = bisect_left(others, (start, b""))
    around = [key for _, key in others[split:] + others[:split]]  # beginning with the successor
    return around if len(around) <= 2 * FLOOD_SIDE else around[:FLOOD_SIDE] + around[-FLOOD_SIDE:]


class Change(NamedTuple):
    """One step from the view at one version to the view at another."""

    position: bytes
    key: bytes
    present: bool
    """True: (still) a member, here is what it looks like now. False: not in the view any more."""


@dataclass(slots=True)
class _Slot:
    """A member, or one that left after the floor. Versions start at 1."""

    position: bytes
    key: bytes
    joined: int
    changed: int
    """Version of the last change that others must see; >= joined."""
    left: int = 0
    """Version of the departure; 0 = live."""
    left_before: int = 0
    """Version of the departure before `joined`; 0 = none."""


class _Reach(NamedTuple):
    """What the edge at one place knew at one version."""

    known: dict[bytes, _Slot]
    held: dict[bytes, _Slot]


_NOTHING = _Reach({}, {})


class Ring:
    """Members in ring order, departed ones among them until they are forgotten."""

    __slots__ = (
        *("_by_key", "_departures", "_live", "_log_size", "_positions", "_recent", "_recent_from", "_slots"),
        "floor",
    )

    def __init__(self, floor: int, log_size: int = LOG_SIZE) -> None:
        self.floor = floor
        """Departures up to this version may be forgotten: only versions from here on can be asked about."""
        self._log_size = log_size
        self._positions: list[bytes] = []
        self._slots: list[_Slot] = []  # parallel to _positions
        self._by_key: dict[bytes, _Slot] = {}
        self._live: list[bytes] = []  # positions of the live ones
        self._departures: deque[tuple[float, int, _Slot]] = deque()  # oldest first
        self._recent: deque[tuple[int, _Slot]] = deque()  # oldest first
        self._recent_from = floor  # every change after this version is in _recent

    def __len__(self) -> int:
        """Live members."""
        return len(self._live)

    # ------------------------------------------------------------ changes

    def join(self, key: bytes, version: int) -> None:
        """A key that is not live becomes so."""
        slot = self._by_key.get(key)
        if slot is None:
            slot = self._by_key[key] = _Slot(ring_position(key), key, version, version)
            index = bisect_left(self._positions, slot.position)
            self._positions.insert(index, slot.position)
            self._slots.insert(index, slot)
        else:
            assert slot.left, "a live member joins"
            slot.left_before, slot.left, slot.joined, slot.changed = slot.left, 0, version, version
        insort(self._live, slot.position)
        self._note(version, slot)

    def change(self, key: bytes, version: int) -> None:
        """Others must see the live member's new data."""
        slot = self._by_key[key]
        slot.changed = version
        self._note(version, slot)

    def leave(self, now_boot: float, key: bytes, version: int) -> None:
        """The live member is gone."""
        slot = self._by_key[key]
        assert not slot.left, "a departed member leaves"
        slot.left = version
        del self._live[bisect_left(self._live, slot.position)]
        self._note(version, slot)
        self._departures.append((now_boot, version, slot))
        self.trim(now_boot)

    def trim(self, now_boot: float) -> None:
        """Forget the oldest departures: beyond LOG_SIZE, and older than LOG_SECONDS."""
        departures = self._departures
        while departures and (len(departures) > self._log_size or departures[0][0] < now_boot - LOG_SECONDS):
            _, version, slot = departures.popleft()
            self.floor = version
            if slot.left == version:
                index = bisect_left(self._positions, slot.position)
                del self._positions[index], self._slots[index], self._by_key[slot.key]

    def _note(self, version: int, slot: _Slot) -> None:
        self._recent.append((version, slot))
        if len(self._recent) > RECENT:
            self._recent_from, _ = self._recent.popleft()

    # ------------------------------------------------------------ questions

    def flood(self, key: bytes, version: int) -> list[bytes]:
        """The flood set of a live member, in ring order. `version`: the cluster's present one."""
        known = self._reach(key, version).known
        return [known[position].key for position in sorted(known)]

    def delta(self, key: bytes, since: int, upto: int, interest: Collection[bytes]) -> list[Change]:
        """What brings the view of a live member from version `since` (0: from nothing) to `upto`, in order of position.

        Both versions lie in floor..present; `upto` is not less than `since`. `interest` must be of a kind that is
        iterated in a fixed order.
        """
        if since and not self._touched(key, since, interest):
            return []
        before = self._reach(key, since) if since else _NOTHING
        after = before if since == upto else self._reach(key, upto)
        steps: dict[bytes, Change] = {}
        for position, slot in before.held.items():
            if position not in after.held:
                steps[position] = Change(position, slot.key, False)
        for position, slot in after.known.items():
            if slot.changed > since or position not in before.known:
                steps[position] = Change(position, slot.key, True)
        for wanted in interest:
            asked = self._by_key.get(wanted)
            if asked is None:
                continue
            if asked.left:
                if asked.left > since > 0:
                    steps[asked.position] = Change(asked.position, wanted, False)
            elif asked.changed > since:
                steps[asked.position] = Change(asked.position, wanted, True)
            elif asked.position in steps and not steps[asked.position].present:
                del steps[asked.position]  # out of the flood set, but asked for
        return [steps[position] for position in sorted(steps)]

    def _touched(self, key: bytes, since: int, interest: Collection[bytes]) -> bool:
        """Whether a change since that version may concern the edge. False: nothing in its view has changed."""
        if since < self._recent_from:
            return True
        live = self._live
        if len(live) <= 2 * FLOOD_SIDE + 1:
            return self._recent[-1][0] > since if self._recent else False
        own = bisect_left(live, self._by_key[key].position)
        first, last = live[own - FLOOD_SIDE], live[(own + FLOOD_SIDE) % len(live)]
        for version, slot in reversed(self._recent):
            if version <= since:
                break
            if slot.key == key:
                continue
            position = slot.position
            inside = first <= position <= last if first <= last else position >= first or position <= last
            if inside or slot.key in interest:
                return True
        return False

    def _reach(self, key: bytes, version: int) -> _Reach:
        """known(version) and held(version) of a live member, by position."""
        slots = self._slots
        own = bisect_left(self._positions, self._by_key[key].position)
        known: dict[bytes, _Slot] = {}
        held: dict[bytes, _Slot] = {}
        # range() from the neighbour, once round, to the one on the other side; negative indexes count from the end.
        for way in (range(own + 1 - len(slots), own), range(own - 1, own - len(slots), -1)):
            certain = possible = 0
            for index in way:
                slot = slots[index]
                # certain and possible, as the module's text defines them
                sure = slot.joined <= version and (not slot.left or version < slot.left)
                if not sure and version >= slot.left_before:
                    continue
                held[slot.position] = slot
                if sure:
                    if not slot.left and possible < FLOOD_SIDE:
                        known[slot.position] = slot
                    certain += 1
                    if certain == FLOOD_SIDE:
                        break
                possible += 1
        return _Reach(known, held)
