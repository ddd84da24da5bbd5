"""The native engine behind the port: commands and events of `core/dataplane.py` to and from `omninervous._native`."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from omninervous._native import NativeEngine as Threads
from omninervous._native import Tables
from omninervous.core.clock import Entropy
from omninervous.core.dataplane import (
    Command,
    ControlReceived,
    DatagramReceived,
    DeliverFrames,
    Event,
    FrameUnresolved,
    FrameWithoutSession,
    InstallSession,
    OpenLanes,
    RemovePeer,
    RemoveSession,
    SelectSession,
    SendControl,
    SendDatagram,
    SendFrames,
    SessionActivity,
    SessionConfirmed,
    SessionExhausted,
    SetEndpoint,
    SetFlood,
    SetPeer,
    SourceChanged,
    TrustCookies,
    UnderlayError,
)
from omninervous.wire.address import Endpoint

__all__ = ["ActivityTuple", "NativeEngine", "activity_of", "events_of", "table_handlers"]

Handlers = dict[type, Callable[[Any], None]]
ActivityTuple = tuple[bytes, int, tuple[float, float, float, float], tuple[int, int, int, int]]
"""Peer, local index, times and counts of a `SessionActivity`."""

_EVENTS: dict[str, Callable[..., Event]] = {
    "datagram": lambda source, data: DatagramReceived(Endpoint(*source), data),
    "confirmed": lambda peer, index, source: SessionConfirmed(peer, index, Endpoint(*source)),
    "control": lambda peer, index, payload, source, size: ControlReceived(
        peer, index, payload, Endpoint(*source), size
    ),
    "source": lambda peer, index, source, size: SourceChanged(peer, index, Endpoint(*source), size),
    "waiting": FrameWithoutSession,
    "unresolved": FrameUnresolved,
    "exhausted": SessionExhausted,
    "error": lambda endpoint, number: UnderlayError(Endpoint(*endpoint), number),
}


class NativeEngine:
    """Fulfils `Synapse`. Its threads run from construction to `close`, outside of the interpreter's lock."""

    name = "native"

    def __init__(
        self,
        queues: Sequence[tuple[int, Sequence[socket.socket]]],
        own_mac: bytes,
        *,
        entropy: Entropy = os.urandom,
    ) -> None:
        """`queues`: a descriptor of the TAP (opened with IFF_VNET_HDR) and bound sockets each, any number of either
        family; the first of one sends. Of several queues the first one is express: they need a TAP opened with
        IFF_MULTI_QUEUE, and sockets that share a port, bound in this order."""
        fds = [(tap, [each.fileno() for each in sockets]) for tap, sockets in queues]
        self._threads = Threads(fds, own_mac)
        self._did: dict[int, ActivityTuple] = {}
        self._handlers: Handlers = {
            **table_handlers(self._threads, entropy),
            SendDatagram: lambda it: self._threads.send_datagram(it.endpoint, it.data),
            SendControl: lambda it: self._threads.send_control(it.local_index, it.payload, it.endpoint),
            SendFrames: lambda it: self._threads.send_frames(it.peer, list(it.frames)),
            DeliverFrames: lambda it: self._threads.deliver_frames(list(it.frames)),
        }

    def fileno(self) -> int:
        """Readable while `events()` has something to give."""
        return self._threads.fileno()

    def submit(self, commands: Sequence[Command]) -> None:
        """Carry out commands in order. Waits for one batch of a data thread at most."""
        for command in commands:
            self._handlers[type(command)](command)

    def events(self) -> Sequence[Event]:
        """All events since the last call."""
        return events_of(self._threads.events())

    def activity(self) -> Sequence[SessionActivity]:
        """What each installed session that has done something since the last call has done so far."""
        before, self._did = self._did, {did[1]: did for did in self._threads.activity()}
        return activity_of(did for index, did in self._did.items() if before.get(index) != did)

    def counters(self) -> Mapping[str, int]:
        """Totals since start, named as those of the reference engine."""
        return dict(self._threads.counters())

    def learned(self) -> Mapping[bytes, float]:
        """Peer MACs whose frames were delivered here, with the second of the newest."""
        return dict(self._threads.learned())

    def close(self) -> None:
        """Stop the threads and wipe all keys. Idempotent."""
        self._threads.close()


def table_handlers(tables: Tables, entropy: Entropy) -> Handlers:
    """What carries out the commands about peers and sessions on an engine of the native module."""

    def set_peer(command: SetPeer) -> None:
        tables.set_peer(
            command.peer,
            command.link.value,
            command.mac,
            [address.packed for address in command.addresses],
            [(network.network_address.packed, network.prefixlen) for network in command.allowed_ips],
            command.mtu,
            int.from_bytes(entropy(4), "big"),
        )

    def open_lanes(command: OpenLanes) -> None:
        lanes = [(each.lane, each.aead.value, each.send_key, each.recv_key) for each in command.lanes]
        tables.open_lanes(command.local_index, lanes, list(command.tx))

    return {
        SetPeer: set_peer,
        RemovePeer: lambda it: tables.remove_peer(it.peer),
        SetFlood: lambda it: tables.set_flood(list(it.peers)),
        InstallSession: lambda it: tables.install_session(
            it.peer, it.local_index, it.remote_index, it.send_key, it.recv_key, it.expires_at
        ),
        OpenLanes: open_lanes,
        SelectSession: lambda it: tables.select_session(it.peer, it.local_index),
        RemoveSession: lambda it: tables.remove_session(it.local_index),
        SetEndpoint: lambda it: tables.set_endpoint(it.peer, it.endpoint, it.budget),
        TrustCookies: lambda _: None,  # every initiation goes to the core
    }


def events_of(tuples: Iterable[tuple[Any, ...]]) -> list[Event]:
    """Events as the native module gives them."""
    return [_EVENTS[kind](*fields) for kind, *fields in tuples]


def activity_of(tuples: Iterable[ActivityTuple]) -> list[SessionActivity]:
    """What sessions have done, as the native module gives it."""
    return [SessionActivity(peer, index, *times, *counts) for peer, index, times, counts in tuples]
