"""What the NATs and firewalls in front of this machine let in, tried out with the Nuclei's help: for `omni netcheck`.

Every test has sockets of its own: their ports have sent nothing yet. Each makes a session with a throwaway key at a
Nucleus, which says where it sees it::

    one    --- HEARTBEAT ---------------> first Nucleus       its ACK: `one` is seen at E
    other  --- HEARTBEAT, probe at E ---> second Nucleus
    one    <-- PROBE -------------------- second Nucleus      `one` never wrote there: filtering (RFC 4787 section 5)
    one    <-- by way of E -------------- other               hairpin (RFC 4787 section 6)

What kept that PROBE out may look at addresses alone: `one` then writes to another port of the second Nucleus's host,
where nobody needs to listen, and is probed again.

It waits for datagrams, so it is called in a thread.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass

from omninervous.core.natview import Filtering, Mapping
from omninervous.core.noise import ZERO_PSK, Initiator
from omninervous.core.session import Session
from omninervous.core.tai64n import Tai64nClock
from omninervous.errors import OmniError
from omninervous.hostos import clock
from omninervous.wire.address import Endpoint
from omninervous.wire.control import Close, CloseReason
from omninervous.wire.signalling import Heartbeat, HeartbeatAck, Probe, SignallingMessage, decode_signalling

__all__ = ["Findings", "Server", "examine", "hints"]

_TRIES = 3
_PATIENCE = 0.3
"""Seconds that one datagram is waited for."""
_SESSION_SECONDS = 60.0
_LONGEST = 2048
_ANSWERS_ONLY = (Filtering.ADDRESS_DEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT)


@dataclass(frozen=True, slots=True)
class Server:
    """A Nucleus that may be asked."""

    endpoint: Endpoint
    key: bytes
    """X25519."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Of one IP version."""

    filtering: Filtering = Filtering.UNKNOWN
    hairpin: bool | None = None
    """Whether a datagram to our own outside address comes back; None: there is no NAT, or nobody to ask."""


def examine(servers: Sequence[Server], own: Collection[Endpoint], iface: str | None) -> Findings:
    """What can be found out with these Nuclei, all of one IP version, the nearest first. Filtering takes two hosts."""
    if not servers:
        return Findings()
    first, second = servers[0], next((each for each in servers if each.endpoint.host != servers[0].endpoint.host), None)
    with _line(first, iface) as one:
        if one is None:
            return Findings()
        filtering = Filtering.UNKNOWN if second is None else _filtering(one, second, iface)
        translated = one.seen.host not in {each.host for each in own}
        return Findings(filtering, _hairpin(one, first, iface) if translated else None)


def hints(version: int, mapping: Mapping, found: Findings, *, counting: bool, silent: bool) -> list[str]:
    """What stands in the way, and what helps, in words. `counting`: the NAT counts its ports up; `silent`: a Nucleus
    was asked, and nobody ever answered."""
    if silent:
        return [f"nothing answers over IPv{version}: a firewall may stop UDP (omni doctor says more)"]
    told = []
    if mapping is Mapping.NONE and found.filtering in _ANSWERS_ONLY:
        told.append("a firewall lets in answers only: let UDP to our port in, and everybody reaches us at once")
    if mapping is Mapping.ADDRESS_DEPENDENT:
        meet = "meet us only if they guess the next one (it counts)" if counting else "cannot meet us over it"
        told.append(
            "the NAT uses another port for each destination: peers behind a NAT that lets in known ports only "
            f"{meet}; forward a UDP port, or use IPv6 or another router"
        )
    if found.hairpin is False:
        told.append(
            "the NAT does not send back what is meant for its own outside address: machines behind it meet on a "
            "common LAN only"
        )
    return told


def _filtering(one: _Line, second: Server, iface: str | None) -> Filtering:
    with _line(second, iface) as other:
        if other is None:
            return Filtering.UNKNOWN
        another_port = Endpoint(second.endpoint.host, second.endpoint.port ^ 1 or 2)
        for filtering, opener in ((Filtering.ENDPOINT_INDEPENDENT, None), (Filtering.ADDRESS_DEPENDENT, another_port)):
            let_in = _let_in(one, other, opener)
            if let_in is None:
                return Filtering.UNKNOWN
            if let_in:
                return filtering
    return Filtering.ADDRESS_AND_PORT_DEPENDENT


def _let_in(one: _Line, other: _Line, opener: Endpoint | None) -> bool | None:
    """Whether a PROBE of the other line's Nucleus arrives, after a datagram to `opener`; None if it sends none."""
    for _ in range(_TRIES):
        if opener is not None:
            one.send(os.urandom(16), opener)
        ack = other.ask(one.seen)
        if ack is None or not ack.probed:
            return None
        if one.hears(lambda data: isinstance(other.opened(data), Probe)):
            return True
    return False


def _hairpin(one: _Line, server: Server, iface: str | None) -> bool | None:
    with _line(server, iface) as other:
        if other is None:
            return None
        words = os.urandom(16)
        for _ in range(_TRIES):
            one.send(words, other.seen)  # lets the answer in
            other.send(words, one.seen)
            if one.hears(lambda data: data == words):
                return True
    return False


@contextlib.contextmanager
def _line(server: Server, iface: str | None) -> Generator[_Line | None, None, None]:
    """A socket with a session at a Nucleus; None if none can be made."""
    family = socket.AF_INET6 if ":" in server.endpoint.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        try:
            if iface is not None and sys.platform == "linux":  # elsewhere it is the tunnel
                udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, iface.encode())
            udp.bind(("", 0))
            session = _handshake(udp, server)
            line = None if session is None else _Line(udp, server, session)
            ack = None if line is None else line.ask(None)
        except OSError:  # no route, no such interface
            line = ack = None
        if line is None or ack is None or ack.observed is None:
            yield None
            return
        line.seen = ack.observed
        try:
            yield line
        finally:
            line.close()


def _handshake(udp: socket.socket, server: Server) -> Session | None:
    now = clock.now()
    index = int.from_bytes(os.urandom(4), "big")
    stamp = Tai64nClock(None).next(now.wall)
    initiator = Initiator.create(os.urandom(32), server.key, ZERO_PSK, stamp, index, os.urandom)
    found: list[Session] = []

    def finishes(data: bytes) -> bool:
        found.append(Session(initiator.finish(data).install(now.boot + _SESSION_SECONDS)))
        return True

    for _ in range(_TRIES):
        udp.sendto(initiator.message, server.endpoint)
        if _hears(udp, finishes):
            return found[0]
    return None


class _Line:
    """See `_line`."""

    def __init__(self, udp: socket.socket, server: Server, session: Session) -> None:
        self._udp = udp
        self._server = server
        self._session = session
        self._requests = 0
        self.seen = server.endpoint
        """Where the Nucleus sees the socket, once it has said so."""

    def ask(self, probe_at: Endpoint | None) -> HeartbeatAck | None:
        """A HEARTBEAT, until it is answered."""
        found: list[HeartbeatAck] = []

        def answers(data: bytes) -> bool:
            message = self.opened(data)
            if isinstance(message, HeartbeatAck) and message.request == self._requests:
                found.append(message)
            return bool(found)

        self._requests += 1
        for _ in range(_TRIES):
            self.send(self._session.seal(Heartbeat(self._requests, 0, 0, probe_at=probe_at).encode()))
            if self.hears(answers):
                return found[0]
        return None

    def opened(self, data: bytes) -> SignallingMessage | None:
        """What the Nucleus says in a datagram of this session. OmniError if it is none."""
        return decode_signalling(self._session.open(clock.now().boot, data).payload)

    def send(self, data: bytes, to: Endpoint | None = None) -> None:
        """To the Nucleus, or to somewhere else. What the system refuses is as good as lost."""
        with contextlib.suppress(OSError):
            self._udp.sendto(data, to or self._server.endpoint)

    def hears(self, wanted: Callable[[bytes], bool]) -> bool:
        """See `_hears`."""
        return _hears(self._udp, wanted)

    def close(self) -> None:
        """Tell the Nucleus to forget the session."""
        self.send(self._session.seal(Close(CloseReason.SHUTDOWN).encode()))
        self._session.wipe()


def _hears(udp: socket.socket, wanted: Callable[[bytes], bool]) -> bool:
    """Whether a datagram that is `wanted` comes in time; all others are dropped, like those that make it raise."""
    deadline = time.monotonic() + _PATIENCE
    while (left := deadline - time.monotonic()) > 0 and select.select([udp], [], [], left)[0]:
        with contextlib.suppress(OmniError, OSError):
            if wanted(udp.recv(_LONGEST)):
                return True
    return False
