"""Edges of a registry without signatures or sockets: members by number, and a client whose messages a test carries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from itertools import count

from omninervous.core.membership import Membership
from omninervous.core.memory_registry import MemoryRegistry
from omninervous.core.registry import ClusterId, Lookup, Registration, Since
from omninervous.core.ring import flood_set
from omninervous.core.viewlog import ClientView, ViewChange
from omninervous.wire.address import Endpoint
from omninervous.wire.membership import VipClaim
from omninervous.wire.signalling import (
    HeartbeatAck,
    HeartbeatStatus,
    PeerEntry,
    PeerInfo,
    PeerStatus,
    RegisterAck,
    RegisterStatus,
)

CLUSTER = ClusterId("fleet", bytes(32))

Delivery = Callable[[], None]
"""A message on its way: calling it delivers it; not calling it loses it; calling it twice doubles it."""


def key_of(number: int) -> bytes:
    """X25519 key of a member."""
    return hashlib.blake2s(number.to_bytes(4, "big")).digest()


def membership(number: int, *, claim: VipClaim | None = None, identity: bytes | None = None) -> Membership:
    """What `verify` would give for a member."""
    key = key_of(number)
    return Membership(
        identity=identity or key[::-1],
        x25519=key,
        serial=1,
        not_before=0,
        not_after=1,
        claim=claim or VipClaim(IPv4Address("10.200.0.1") + number, 13),
        name=None,
        mac=b"\x02" + key[:5],
        ula=IPv6Address("fd6f:6d6e:6900::1") + number,
        raw=key * 7,
    )


def registration(number: int, *, port: int = 1000, boot: int = 0, claim: VipClaim | None = None) -> Registration:
    """What a member registers with."""
    return Registration(membership(number, claim=claim), boot.to_bytes(16, "big"), Endpoint("192.0.2.1", port))


@dataclass
class Nucleus:
    """A registry that starts, runs and starts again, and answers in messages.

    Of two starts of one edge it believes the later: what is left on the way of an earlier one is ignored while the
    later is registered."""

    room: int = 1100
    """Bytes of entries in one message."""
    log_size: int = 4096
    registry: MemoryRegistry = field(init=False)
    epochs: int = 0

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.epochs += 1
        self.registry = MemoryRegistry(self.epochs, log_size=self.log_size)

    def register(self, now: float, number: int, boot: int, port: int, request: int) -> RegisterAck:
        if self.boot(number) > boot:
            return RegisterAck(request, RegisterStatus.CLONED)
        arrival = registration(number, port=port, boot=boot)
        assert self.registry.register(now, CLUSTER, arrival).status is RegisterStatus.OK
        page = self.registry.page(CLUSTER, key_of(number), Since(0, 0), self.room)
        ack = RegisterAck(request, RegisterStatus.OK, page.epoch, page.version, peers=page.joined, cursor=page.cursor)
        assert not page.left
        return ack

    def heartbeat(self, now: float, number: int, boot: int, since: Since, port: int, request: int) -> HeartbeatAck:
        key = key_of(number)
        if self.boot(number) != boot:
            return HeartbeatAck(request, 0, 0, 0, HeartbeatStatus.UNKNOWN)
        self.registry.refresh(now, CLUSTER, key, Endpoint("192.0.2.1", port), ())
        page = self.registry.page(CLUSTER, key, since, self.room)
        return HeartbeatAck(
            *(request, page.epoch, page.since, page.version, HeartbeatStatus.OK, None),
            *(page.joined, page.left, page.more, page.cursor, None, page.since == 0),
        )

    def query(self, number: int, boot: int, lookup: Lookup, request: int) -> PeerInfo | None:
        if self.boot(number) != boot:
            return None
        found = self.registry.find(CLUSTER, key_of(number), lookup)
        return PeerInfo(request, PeerStatus.NOT_FOUND) if found is None else PeerInfo(request, entry=found.entry)

    def leave(self, now: float, number: int, boot: int) -> None:
        if self.boot(number) == boot:
            self.registry.leave(now, CLUSTER, key_of(number))

    def boot(self, number: int) -> int:
        """Of the registered start of an edge; -1 without one."""
        member = self.registry.member(CLUSTER, key_of(number))
        return -1 if member is None else int.from_bytes(member.boot_id, "big")

    def live(self, numbers: range) -> dict[bytes, PeerEntry]:
        """Entries of the live members, by key."""
        members = [self.registry.member(CLUSTER, key_of(number)) for number in numbers]
        return {member.key: member.entry for member in members if member is not None}


class Edge:
    """A client. Every request gives a message on its way; its answer is put on `wire` when it is delivered."""

    def __init__(self, number: int, nucleus: Nucleus, wire: list[Delivery], boot: int = 0) -> None:
        self.number = number
        self.boot = boot
        self.key = key_of(number)
        self.view = ClientView(lambda entry: entry.membership[:32])
        self.port = 1000
        self.asked: dict[bytes, None] = {}
        """Every key it ever asked for."""
        self.to_ask: dict[bytes, None] = {}
        self.again = False
        self.unknown = True
        self._nucleus = nucleus
        self._wire = wire
        self._requests = count(1)
        self._open: dict[int, bytes] = {}  # unanswered queries

    def speak(self, now: float) -> Delivery:
        """REGISTER if need be, else HEARTBEAT."""
        return self.register(now) if self.unknown else self.heartbeat(now)

    def register(self, now: float) -> Delivery:
        request, port = next(self._requests), self.port
        self.view.register_sent(request)

        def arrive() -> None:
            ack = self._nucleus.register(now, self.number, self.boot, port, request)
            self._wire.append(lambda: self._registered(ack))

        return arrive

    def heartbeat(self, now: float) -> Delivery:
        request, port = next(self._requests), self.port
        since = Since(*self.view.heartbeat_sent(request))
        self.again = False

        def arrive() -> None:
            ack = self._nucleus.heartbeat(now, self.number, self.boot, since, port, request)
            self._wire.append(lambda: self._heard(ack))

        return arrive

    def ask(self, key: bytes) -> Delivery:
        """QUERY_PEER by key."""
        request = next(self._requests)
        self.view.query_sent(request, key)
        self.asked[key] = None
        self._open[request] = key

        def arrive() -> None:
            info = self._nucleus.query(self.number, self.boot, Lookup(key=key), request)
            if info is not None:
                self._wire.append(lambda: self._answered(info))

        return arrive

    def leave(self, now: float) -> Delivery:
        """LEAVE."""
        self.unknown = True
        return lambda: self._nucleus.leave(now, self.number, self.boot)

    def _registered(self, ack: RegisterAck) -> None:
        if self._merge(self.view.register_acked(ack)) and ack.status is RegisterStatus.OK:
            self.unknown = False

    def _heard(self, ack: HeartbeatAck) -> None:
        if self._merge(self.view.heartbeat_acked(ack)) and ack.status is HeartbeatStatus.UNKNOWN:
            self.unknown = True

    def _answered(self, info: PeerInfo) -> None:
        self.to_ask.pop(self._open.pop(info.request, b""), None)
        self._merge(self.view.answered(info))

    def _merge(self, change: ViewChange | None) -> bool:
        if change is None:
            return False
        self.again |= change.again
        self.to_ask.update(dict.fromkeys(change.ask_again))
        return True


def assert_right_view(edge: Edge, nucleus: Nucleus, numbers: range) -> None:
    """The view is the live flood set and the live members it found by query, each as it is now."""
    live = nucleus.live(numbers)
    flood = flood_set(edge.key, list(live))
    found = [key for key in edge.view.queried if key in live and key != edge.key]
    entries = dict(edge.view.entries)
    assert edge.key not in entries
    assert set(entries) <= set(live), "a dead member is in view"
    assert set(entries) >= {*flood, *found}, "a member is missing"
    assert set(entries) <= {*flood, *edge.asked}, "a member is in view that nobody asked for"
    assert entries == {key: live[key] for key in entries}, "an entry is out of date"
