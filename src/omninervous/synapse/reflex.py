"""Two lanes behind one port: a userspace engine, and the kernel's lane (the programs of `bpf/`).

    commands ──► userspace engine: everything but the keys of lane 8
             └─► kernel's lane:    peers, endpoints, sessions, the keys of lane 8, what handshakes are pending
    events, activity, counters, learned MACs ◄── both, put together

No packet passes here. The kernel's lane sends for a peer on one session, the newest whose lane 8 both sides have
opened: after a rekey frames stay on the earlier session until that is so, or they would take the slower lane for a
moment and arrive behind later ones.
"""

from __future__ import annotations

import select
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from omninervous.core.dataplane import (
    Command,
    Event,
    InstallSession,
    Link,
    OpenLanes,
    PeerId,
    RemovePeer,
    RemoveSession,
    SelectSession,
    SendDatagram,
    SessionActivity,
    SetEndpoint,
    SetPeer,
    TrustCookies,
)
from omninervous.synapse.native import ActivityTuple, events_of
from omninervous.synapse.port import Synapse
from omninervous.wire.transport import LANE_REFLEX

__all__ = ["KernelLane", "Programs", "ReflexEngine"]

NO_SESSION = 0
"""An index that no session has: nothing is sent."""
_BY_LANE = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")


class KernelLane(Protocol):
    """What this asks of `omninervous._native.Reflex`: the verbs and values of `_native.Tables`, for lane 8."""

    def fileno(self) -> int: ...
    def set_peer(self, peer: bytes, mac: bytes | None, addresses: list[bytes], mtu: int) -> None: ...
    def remove_peer(self, peer: bytes) -> None: ...
    def set_endpoint(self, peer: bytes, endpoint: tuple[str, int], proven: bool) -> None: ...
    def install_session(self, peer: bytes, local_index: int, remote_index: int, expires_at: float) -> None: ...
    def open_lane(self, local_index: int, send_key: bytes, recv_key: bytes, send: bool) -> bool: ...
    def select_session(self, peer: bytes, local_index: int) -> None: ...
    def remove_session(self, local_index: int) -> None: ...
    def note_datagram(self, endpoint: tuple[str, int], data: bytes) -> None: ...
    def trust_cookies(self, secret: bytes, until: float) -> None: ...
    def events(self) -> list[tuple[Any, ...]]: ...
    def activity(self) -> list[ActivityTuple]: ...
    def counters(self) -> list[tuple[str, int]]: ...
    def learned(self) -> list[tuple[bytes, float]]: ...
    def close(self) -> None: ...


class Programs(KernelLane, Protocol):
    """The same, as whoever puts it into place asks of it."""

    def limit(self, rate: int) -> None: ...
    def attach_underlay(self, ifindex: int, mechanism: str) -> None: ...
    def detach_underlay(self, ifindex: int) -> None: ...
    def attach_overlay(self) -> None: ...
    def watch(self, peer: bytes, on: bool) -> None: ...
    def tick(self) -> None: ...
    def programs(self) -> list[tuple[str, str, int]]: ...


@dataclass(slots=True)
class _Session:
    peer: PeerId
    handshake: tuple[int, float]
    """The other side's index, and when the session expires: with the same two it is the same session."""
    opened: bool = False
    """The kernel has the keys of its lane 8."""
    agreed: bool = False
    """It is known which lanes both sides have opened."""
    sends: bool = False
    """Lane 8 is one of them."""
    in_userspace: SessionActivity | None = None
    in_kernel: ActivityTuple | None = None
    """What it has done on the lanes of each."""

    def activity(self) -> SessionActivity | None:
        """On all lanes; None before userspace has said anything."""
        if self.in_userspace is None or self.in_kernel is None:
            return self.in_userspace
        _, _, times, counts = self.in_kernel
        return _plus(self.in_userspace, times, counts)


@dataclass(slots=True)
class _Choice:
    selected: int
    """The core's choice."""
    sending: int | None = None
    """The session that the kernel's lane sends on."""


class ReflexEngine:
    """Fulfils `Synapse`."""

    def __init__(self, userspace: Synapse, kernel: KernelLane) -> None:
        """Both are closed with this."""
        self.name = userspace.name
        self._userspace = userspace
        self._kernel = kernel
        self._sessions: dict[int, _Session] = {}
        self._choices: dict[PeerId, _Choice] = {}
        self._refused = 0
        # An epoll descriptor is readable while one of its own is.
        self._ready = select.epoll()
        for each in (userspace, kernel):
            self._ready.register(each.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        """Readable while `events()` has something to give."""
        return self._ready.fileno()

    def submit(self, commands: Sequence[Command]) -> None:
        """Carry out commands in order: what lets packets in reaches the kernel first."""
        for command in commands:
            try:
                self._steer(command)
            except OSError:  # a map is full, memory is short: userspace has the command all the same
                self._refused += 1
        self._userspace.submit([_without_reflex(each) for each in commands])

    def events(self) -> Sequence[Event]:
        """All events since the last call."""
        return [*self._userspace.events(), *events_of(self._kernel.events())]

    def activity(self) -> Sequence[SessionActivity]:
        """What each installed session that has done something since the last call has done so far, on all lanes."""
        changed: dict[int, _Session] = {}
        for each in self._userspace.activity():
            session = self._sessions.get(each.local_index)
            if session is not None and session.in_userspace != each:
                session.in_userspace = each
                changed[each.local_index] = session
        for did in self._kernel.activity():
            session = self._sessions.get(did[1])
            if session is not None and session.in_kernel != did:
                session.in_kernel = did
                changed[did[1]] = session
        return [merged for each in changed.values() if (merged := each.activity()) is not None]

    def counters(self) -> Mapping[str, int]:
        """Totals since start of both lanes."""
        total = {**self._userspace.counters(), "reflex_refused": self._refused}
        for name, number in self._kernel.counters():
            total[name] = total.get(name, 0) + number
            if name in _BY_LANE:
                total[f"lane{LANE_REFLEX}_{name}"] = number
        return total

    def learned(self) -> Mapping[bytes, float]:
        """Peer MACs whose frames were delivered here, with the second of the newest."""
        found = dict(self._userspace.learned())
        for mac, at in self._kernel.learned():
            found[mac] = max(at, found.get(mac, 0.0))
        return found

    def close(self) -> None:
        """Take the programs away first: frames then reach an engine that still runs. Idempotent."""
        self._ready.close()
        self._kernel.close()
        self._userspace.close()

    # ------------------------------------------------------------ the kernel's part of a command

    def _steer(self, command: Command) -> None:
        kernel = self._kernel
        match command:
            case SetPeer(peer=peer, link=Link.ETHERNET):
                addresses = [address.packed for address in command.addresses]
                kernel.set_peer(peer, command.mac, addresses, command.mtu)
            case SetPeer(peer=peer):
                kernel.set_peer(peer, None, [], command.mtu)
            case SetEndpoint(peer=peer):
                kernel.set_endpoint(peer, command.endpoint, command.budget is None)
            case SendDatagram():
                kernel.note_datagram(command.endpoint, command.data)
            case TrustCookies():
                kernel.trust_cookies(command.secret, command.until)
            case InstallSession():
                self._install(command)
            case OpenLanes():
                self._open(command)
            case SelectSession(peer=peer, local_index=index):
                self._choices.setdefault(peer, _Choice(index)).selected = index
                self._choose(peer)
            case RemoveSession(local_index=index):
                self._remove(index)
            case RemovePeer(peer=peer):
                self._choices.pop(peer, None)
                self._sessions = {index: each for index, each in self._sessions.items() if each.peer != peer}
                kernel.remove_peer(peer)

    def _install(self, command: InstallSession) -> None:
        known = self._sessions.get(command.local_index)
        handshake = (command.remote_index, command.expires_at)
        if known is not None and (known.peer, known.handshake) == (command.peer, handshake):
            return  # its counters must not start again
        self._sessions[command.local_index] = _Session(command.peer, handshake)
        self._kernel.install_session(command.peer, command.local_index, command.remote_index, command.expires_at)

    def _open(self, command: OpenLanes) -> None:
        session = self._sessions.get(command.local_index)
        if session is None:
            return
        for keys in command.lanes:
            if keys.lane == LANE_REFLEX and not session.opened:
                # It may send as soon as it is selected, and that waits for `tx`.
                session.opened = self._kernel.open_lane(command.local_index, keys.send_key, keys.recv_key, True)
                self._refused += not session.opened
        if command.tx:  # a repeated CAPS names no lanes to send on for a moment, and changes nothing
            session.agreed = True
            session.sends = session.opened and LANE_REFLEX in command.tx
        self._choose(session.peer)

    def _remove(self, index: int) -> None:
        session = self._sessions.pop(index, None)
        if session is not None:
            self._choose(session.peer)
        self._kernel.remove_session(index)

    def _choose(self, peer: PeerId) -> None:
        choice = self._choices.get(peer)
        if choice is None:
            return
        selected = self._sessions.get(choice.selected)
        # The other side may have no lane 8 any more, and would lose what still came on an earlier session's.
        over = selected is not None and selected.agreed and not selected.sends
        usable = () if over else (choice.selected, choice.sending)
        wanted = next((index for index in usable if self._sends(index)), None)
        if wanted is not None and wanted != choice.sending:
            self._kernel.select_session(peer, wanted)
        elif wanted is None and choice.sending is not None:
            self._kernel.select_session(peer, NO_SESSION)
        choice.sending = wanted

    def _sends(self, index: int | None) -> bool:
        session = None if index is None else self._sessions.get(index)
        return session is not None and session.sends


def _without_reflex(command: Command) -> Command:
    """The command as userspace gets it: it never holds keys of the kernel's lane."""
    if not isinstance(command, OpenLanes):
        return command
    lanes = tuple(keys for keys in command.lanes if keys.lane != LANE_REFLEX)
    return replace(command, lanes=lanes, tx=tuple(lane for lane in command.tx if lane != LANE_REFLEX))


def _plus(
    activity: SessionActivity, times: tuple[float, float, float, float], counts: tuple[int, int, int, int]
) -> SessionActivity:
    """One session's activity, with that of another lane."""
    tx_at, tx_data_at, rx_at, rx_data_at = times
    tx_packets, tx_bytes, rx_packets, rx_bytes = counts
    return replace(
        activity,
        tx_at=max(activity.tx_at, tx_at),
        tx_data_at=max(activity.tx_data_at, tx_data_at),
        rx_at=max(activity.rx_at, rx_at),
        rx_data_at=max(activity.rx_data_at, rx_data_at),
        tx_packets=activity.tx_packets + tx_packets,
        tx_bytes=activity.tx_bytes + tx_bytes,
        rx_packets=activity.rx_packets + rx_packets,
        rx_bytes=activity.rx_bytes + rx_bytes,
    )
