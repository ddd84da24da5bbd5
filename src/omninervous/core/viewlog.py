"""An edge's view of its cluster, merged from what one Nucleus says: the client side of `core.registry`.

    view = ClientView(key_of)
    view.register_sent(request)                 with every REGISTER
    at = view.heartbeat_sent(request)           with every HEARTBEAT: its epoch, version and cursor
    change = view.register_acked(ack)           each None if the message is not (or no longer) awaited,
    change = view.heartbeat_acked(ack)          else what is new in the view
    view.query_sent(request, key)               with every QUERY_PEER; key: None if it asks by address or MAC
    change = view.answered(info)

`change.again`: send the next HEARTBEAT at once. `change.ask_again`: keys that were queried before and that the Nucleus
has forgotten, or lost; whoever still wants them queries them by key (spread over a few seconds: a restarted Nucleus has
many edges), or says `forget`. Requests are numbered by the caller, never twice the same number within a session.

What holds once a HEARTBEAT_ACK without `again` was applied and `ask_again` was dealt with: `view.entries` is the live
members of the flood set together with the live members of `view.queried`, as they were when that ACK was made, and at
most those that this edge queried at any time beside them. It never holds a member that was dead then. A member that
leaves the flood set and was not queried is dropped at the same time, alive or not: whoever still needs it queries it.
Its place in the flood set is taken by another.

Only the ACK of the newest REGISTER or HEARTBEAT is taken, and only once: lost, doubled and overtaken messages cost
time, never correctness. An answer to a query that an ACK has overtaken may be older than the view: it serves to
connect, but does not enter the view, and its key is to be asked for again. Pushed PEER_INFOs (request 0) never enter
it.

Nothing is verified here: `key_of` gives the X25519 key of an entry whose membership verified, else None.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from omninervous.wire.signalling import (
    HeartbeatAck,
    HeartbeatStatus,
    PeerEntry,
    PeerInfo,
    RegisterAck,
    RegisterStatus,
)

__all__ = ["QUERIED_LIMIT", "VIEW_LIMIT", "ClientView", "ViewChange", "ViewPosition"]

QUERIED_LIMIT = 128
"""Queried members that are asked for again after a Nucleus forgot them. The registry remembers at least as many."""
VIEW_LIMIT = 1024
"""Members held at most: several times what an honest Nucleus names (64 flood neighbours, 256 queried)."""


class ViewPosition(NamedTuple):
    """How far a view got: fields of the next HEARTBEAT."""

    epoch: int
    version: int
    cursor: bytes | None


@dataclass(frozen=True, slots=True)
class ViewChange:
    """What one message changed."""

    joined: tuple[tuple[bytes, PeerEntry], ...] = ()
    """(X25519 key, entry) of members that are new or changed."""
    left: tuple[bytes, ...] = ()
    """X25519 keys of members that are no longer in the view."""
    again: bool = False
    """There is more: send the next HEARTBEAT at once."""
    ask_again: tuple[bytes, ...] = ()
    """X25519 keys to be queried again if they are still wanted."""
    anew: bool = False
    """The Nucleus has another registry than before: who left the view may not have registered there yet."""


class ClientView:
    """The view that one Nucleus gives. See the module's text."""

    __slots__ = (
        "_acks",
        "_anew",
        "_asked",
        "_awaited",
        "_cursor",
        "_entries",
        "_epoch",
        "_key_of",
        "_queried",
        "_renewed",
        "_target",
        "_version",
    )

    def __init__(self, key_of: Callable[[PeerEntry], bytes | None]) -> None:
        self._key_of = key_of
        self._entries: dict[bytes, PeerEntry] = {}
        self._epoch = 0
        self._anew = False  # the snapshot being read is of another registry
        self._version = 0
        self._cursor: bytes | None = None
        self._target = 0  # version that the pages being read lead to
        self._renewed: dict[bytes, None] | None = None  # keys named so far by the snapshot being read
        self._awaited: int | None = None
        self._acks = 0  # how many ACKs were applied
        self._asked: OrderedDict[int, tuple[int, bytes | None]] = OrderedDict()  # open query -> (_acks then, key)
        self._queried: OrderedDict[bytes, None] = OrderedDict()  # oldest first

    @property
    def entries(self) -> Mapping[bytes, PeerEntry]:
        """The members in view, by X25519 key. A live view of it, not a copy."""
        return MappingProxyType(self._entries)

    @property
    def version(self) -> int:
        """The version that the view is complete for; 0 before the first."""
        return self._version

    @property
    def queried(self) -> tuple[bytes, ...]:
        """Members that were found by query and are asked for again when a Nucleus forgets them, the oldest first."""
        return tuple(self._queried)

    # ------------------------------------------------------------ requests

    def register_sent(self, request: int) -> None:
        """A REGISTER with this number went out: from now on only its ACK counts."""
        self._awaited = request

    def heartbeat_sent(self, request: int) -> ViewPosition:
        """What to put into a HEARTBEAT with this number: from now on only its ACK counts."""
        self._awaited = request
        return ViewPosition(self._epoch, self._version, self._cursor)

    def query_sent(self, request: int, key: bytes | None = None) -> None:
        """A QUERY_PEER with this number went out. `key`: the X25519 key that it names, if it does."""
        self._asked[request] = (self._acks, key)
        if len(self._asked) > VIEW_LIMIT:
            self._asked.popitem(last=False)

    def forget(self, key: bytes) -> None:
        """A queried member is not wanted any more: it will not be in `ask_again`."""
        self._queried.pop(key, None)

    # ------------------------------------------------------------ answers

    def register_acked(self, ack: RegisterAck) -> ViewChange | None:
        """A REGISTER_ACK of any status; only OK changes the view: it begins a snapshot."""
        if not self._take(ack.request):
            return None
        if ack.status is not RegisterStatus.OK:
            return ViewChange()
        self._begin_snapshot(ack.epoch, ack.version)
        return self._page(ack.peers, (), ack.cursor, more=ack.cursor is not None)

    def heartbeat_acked(self, ack: HeartbeatAck) -> ViewChange | None:
        """A HEARTBEAT_ACK of any status. VIP_LOST still brings the view; the others leave it as it is."""
        if not self._take(ack.request):
            return None
        if ack.status not in (HeartbeatStatus.OK, HeartbeatStatus.VIP_LOST):
            return ViewChange()
        if ack.snapshot:
            # A continued snapshot leads to the version it began with. Another one: the Nucleus began anew.
            if self._renewed is None or (ack.epoch, ack.version) != (self._epoch, self._target):
                self._begin_snapshot(ack.epoch, ack.version)
        elif ack.epoch != self._epoch or ack.from_version != self._version or self._renewed is not None:
            return ViewChange(again=True)  # not what was asked for: ask again for what we have
        elif self._cursor is None:
            self._target = ack.version
        elif ack.version != self._target:
            return ViewChange(again=True)
        return self._page(ack.joined, ack.left, ack.cursor, more=ack.more)

    def answered(self, info: PeerInfo) -> ViewChange | None:
        """The answer to a query. None: it was not (or no longer) asked for, or no such member was found."""
        acks_then, asked_key = self._asked.pop(info.request, (None, None))
        if acks_then is None:
            return None
        overtaken = acks_then != self._acks
        if info.entry is None:
            if asked_key is None or not overtaken or asked_key not in self._queried:
                return None
            return ViewChange(ask_again=(asked_key,))
        key = self._key_of(info.entry)
        if key is None:
            return None
        self._queried.pop(key, None)
        self._queried[key] = None
        if len(self._queried) > QUERIED_LIMIT:
            self._queried.popitem(last=False)
        if overtaken:
            return ViewChange(ask_again=(key,))
        return ViewChange(joined=((key, info.entry),) if self._add(key, info.entry) else ())

    # ------------------------------------------------------------ merging

    def _take(self, request: int) -> bool:
        if request != self._awaited:
            return False
        self._awaited = None
        self._acks += 1
        return True

    def _begin_snapshot(self, epoch: int, version: int) -> None:
        self._anew = self._anew or epoch != self._epoch
        self._epoch, self._version, self._cursor = epoch, 0, None
        self._target, self._renewed = version, {}

    def _page(
        self, joined: tuple[PeerEntry, ...], left: tuple[bytes, ...], cursor: bytes | None, *, more: bool
    ) -> ViewChange:
        gone = [key for key in left if self._entries.pop(key, None) is not None]
        added = []
        for entry in joined:
            key = self._key_of(entry)
            if key is not None and self._add(key, entry):
                added.append((key, entry))
        self._cursor = cursor
        if cursor is not None:
            return ViewChange(tuple(added), tuple(gone), again=more)
        ask_again: list[bytes] = []
        if self._renewed is not None:
            for key in [key for key in self._entries if key not in self._renewed]:
                del self._entries[key]
                gone.append(key)
            # Who is in the snapshot may be there as a flood neighbour only: it does not count as queried any more.
            ask_again = [key for key in self._queried if key not in self._renewed]
            self._queried = OrderedDict.fromkeys(ask_again)
            self._renewed = None
        self._version = self._target
        anew, self._anew = self._anew, False
        return ViewChange(tuple(added), tuple(gone), more, tuple(ask_again), anew)

    def _add(self, key: bytes, entry: PeerEntry) -> bool:
        if key not in self._entries and len(self._entries) >= VIEW_LIMIT:
            return False
        self._entries[key] = entry
        if self._renewed is not None:
            self._renewed[key] = None
        return True
