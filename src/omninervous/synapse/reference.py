"""The reference engine: `Datapath` with a TAP, UDP sockets and a thread. Readable, portable, and not slow on purpose.

::

    thread:   wait ─► drain TAP and sockets (at most BATCH each) into the Datapath ─► send what came out ─► wait
    submit(): the commands, and what they make the Datapath send, at once in the caller's thread

One lock guards the Datapath and everything that is sent; it is held for a batch, never while waiting. The TAP is a
plain one (IFF_TAP | IFF_NO_PI, no vnet_hdr, hence no offloads).

What the environment does to an engine is counted, told to the core as an `UnderlayError` (at most one per endpoint
and second), and survived: full buffers, unreachable networks, datagrams too large for the path, a TAP that is down
or gone. A descriptor that fails on every read is left alone for a second, so that it cannot keep the thread busy.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from omninervous.core.clock import Entropy
from omninervous.core.dataplane import Command, Event, SessionActivity
from omninervous.core.traffic_class import ECN
from omninervous.errors import SystemFailure
from omninervous.synapse.datapath import MAX_FRAME, Datapath, Packets
from omninervous.synapse.wakeup import FairLock, Signal
from omninervous.wire.address import Endpoint

__all__ = ["TAP_ENDPOINT", "ReferenceEngine"]

BATCH = 32
"""Datagrams per socket, and frames, that one turn takes: bounds how long `submit` waits and how long one side can
keep the other waiting."""
DATAGRAM_LIMIT = 65535
RETRY_SECONDS = 1.0
"""How long a descriptor that failed is left alone."""
TAP_ENDPOINT = Endpoint("0.0.0.0", 0)
"""Stands for the TAP in an `UnderlayError`."""

_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_FULL = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)
_MAPPED_PREFIX = "::ffff:"
_INT = struct.Struct("=i")
_ANCILLARY_SPACE = socket.CMSG_SPACE(_INT.size)
_IP_RECVTOS = getattr(socket, "IP_RECVTOS", 13)
_CLASS: dict[int, tuple[int, int]] = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TOS),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
}
"""Control message of a datagram's traffic class (ip(7), ipv6(7))."""
_REPORT_CLASS: dict[int, tuple[int, int]] = {
    socket.AF_INET: (socket.IPPROTO_IP, _IP_RECVTOS),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS),
}
"""Option that asks for it with every datagram received."""

_Drain = Callable[[float], None]
"""Takes what a descriptor has, at the instant given."""


def boot_time() -> float:
    """Seconds on the boot-time clock; macOS has only the monotonic one."""
    return time.clock_gettime(_BOOT_CLOCK)


class ReferenceEngine:
    """Fulfils `Synapse`. The thread runs from construction to `close`; the descriptors stay their owner's."""

    name = "reference"

    def __init__(
        self,
        tap_fd: int,
        sockets: Sequence[socket.socket],
        own_mac: bytes,
        mtu: int,
        *,
        clock: Callable[[], float] = boot_time,
        entropy: Entropy = os.urandom,
    ) -> None:
        """`sockets`: bound, any number of either family; the first of a family sends. `mtu`: of the TAP."""
        self._tap = tap_fd
        self._read_size = max(MAX_FRAME, mtu + MAX_FRAME - 9216) + 1
        self._clock = clock
        self._datapath = Datapath(own_mac, entropy)
        self._lock = FairLock()
        self._signal = Signal()
        self._wake = Signal()
        self._senders: dict[int, socket.socket] = {}
        self._resting: dict[int, tuple[float, _Drain]] = {}
        self._failure: BaseException | None = None
        self._closed = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake.fileno(), selectors.EVENT_READ, _nothing)
        os.set_blocking(tap_fd, False)
        self._watch(tap_fd, self._drain_tap)
        for each in sockets:
            each.setblocking(False)
            each.setsockopt(*_REPORT_CLASS[each.family], 1)
            self._senders.setdefault(each.family, each)
            self._watch(each.fileno(), partial(self._drain_socket, each, each.fileno()))
        self._thread = threading.Thread(target=self._run, name="synapse-reference", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------ the port

    def fileno(self) -> int:
        """Readable while `events()` has something to give; -1 once closed."""
        return self._signal.fileno()

    def submit(self, commands: Sequence[Command]) -> None:
        """Carry out commands and send what they cause. Waits for one batch of the engine thread at most."""
        with self._lock:
            if not self._closed:
                now = self._clock()
                self._datapath.submit(now, commands)
                self._flush(now)

    def events(self) -> Sequence[Event]:
        """All events since the last call. SystemFailure if the engine's thread has died of a bug."""
        with self._lock:
            self._signal.clear()
            if self._failure is not None:
                raise SystemFailure(f"the reference engine has stopped: {self._failure!r}") from self._failure
            return self._datapath.take_events()

    def activity(self) -> Sequence[SessionActivity]:
        """What every installed session has done so far."""
        with self._lock:
            return self._datapath.activity()

    def counters(self) -> Mapping[str, int]:
        """Totals since start, as `Datapath.counters`; the engine adds drops of its own: `send_buffer`,
        `underlay_error`, `underlay_receive`, `tap_read`, `tap_write`, `no_socket`, `too_big`."""
        with self._lock:
            return self._datapath.counters()

    def learned(self) -> Mapping[bytes, float]:
        """Peer MACs whose frames were delivered here, with the second of the newest."""
        with self._lock:
            return self._datapath.learned()

    def close(self) -> None:
        """Stop the thread and wipe all keys. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._datapath.wipe()
            self._wake.set()
        self._thread.join()
        self._selector.close()
        self._signal.close()
        self._wake.close()

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        timeout: float | None = None
        try:
            while not self._closed:
                ready = self._selector.select(timeout)
                with self._lock:
                    if not self._closed:
                        timeout = self._turn([key.data for key, _ in ready])
        except BaseException as error:
            # Nobody would notice a dead thread: `events` tells whoever waits on our descriptor.
            with self._lock:
                self._failure = error
                self._signal.set()
            raise

    def _turn(self, drains: Sequence[_Drain]) -> float | None:
        """One round; seconds until the next one is due (None: only a descriptor can wake us)."""
        now = self._clock()
        for drain in drains:
            drain(now)
            self._flush(now)
        deadline = self._datapath.next_deadline()
        if deadline is not None and deadline <= now:
            self._datapath.handle_timeout(now)
            deadline = self._datapath.next_deadline()
        due = [] if deadline is None else [deadline]
        if self._resting:
            self._wake_resting(now)
            due.extend(until for until, _ in self._resting.values())
        return max(0.0, min(due) - self._clock()) if due else None

    # ------------------------------------------------------------ in

    def _drain_tap(self, now: float) -> None:
        receive, tap, size = self._datapath.from_tap, self._tap, self._read_size
        try:
            for _ in range(BATCH):
                receive(now, os.read(tap, size))
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:  # EBADFD: the interface was deleted; EIO: it is going away
            self._datapath.link_error(now, "tap_read", TAP_ENDPOINT, error.errno or errno.EIO)
            self._rest(now, tap, self._drain_tap)

    def _drain_socket(self, udp: socket.socket, descriptor: int, now: float) -> None:
        receive = self._datapath.from_underlay
        for _ in range(BATCH):
            try:
                data, ancillary, _, address = udp.recvmsg(DATAGRAM_LIMIT, _ANCILLARY_SPACE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._datapath.drop("underlay_receive")
                if error.errno in (errno.EBADF, errno.ENOTSOCK):
                    self._rest(now, descriptor, partial(self._drain_socket, udp, descriptor))
                    return
                continue  # an error that an earlier datagram caused (ICMP): reading it has cleared it
            receive(
                now, _endpoint(address), data, int.from_bytes(ancillary[0][2], sys.byteorder) & ECN if ancillary else 0
            )

    def _watch(self, descriptor: int, drain: _Drain) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, drain)

    def _rest(self, now: float, descriptor: int, drain: _Drain) -> None:
        """Stop looking at a descriptor that only fails, for a while."""
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._selector.unregister(descriptor)
        self._resting[descriptor] = (now + RETRY_SECONDS, drain)

    def _wake_resting(self, now: float) -> None:
        for descriptor, (until, drain) in list(self._resting.items()):
            if until > now:
                continue
            del self._resting[descriptor]
            try:
                self._watch(descriptor, drain)
            except (OSError, ValueError, KeyError):
                self._rest(now, descriptor, drain)

    # ------------------------------------------------------------ out

    def _flush(self, now: float) -> None:
        """Send all that the Datapath has, and what it adds when a datagram turns out too large."""
        while self._datapath.has_packets:
            packets = self._datapath.take_packets()
            for frame in packets.frames:
                self._write_tap(now, frame)
            self._send(now, packets)
        if self._datapath.has_events:
            self._signal.set()

    def _write_tap(self, now: float, frame: bytes) -> None:
        try:
            os.write(self._tap, frame)
        except OSError as error:  # EIO: the interface is down; EBADFD: it was deleted
            if error.errno in _FULL:
                self._datapath.drop("tap_write")
            else:
                self._datapath.link_error(now, "tap_write", TAP_ENDPOINT, error.errno or errno.EIO)

    def _send(self, now: float, packets: Packets) -> None:
        for position, (endpoint, data) in enumerate(packets.datagrams):
            sender = self._senders.get(socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET)
            if sender is None:
                self._datapath.drop("no_socket")
                continue
            try:
                if position in packets.classes:
                    control = (*_CLASS[sender.family], _INT.pack(packets.classes[position]))
                    sender.sendmsg([data], [control], 0, endpoint)
                else:
                    sender.sendto(data, endpoint)
            except OSError as error:
                self._send_failed(now, packets, position, error.errno or errno.EIO)

    def _send_failed(self, now: float, packets: Packets, position: int, number: int) -> None:
        endpoint, data = packets.datagrams[position]
        if number == errno.EMSGSIZE:
            self._datapath.too_big(now, len(data), packets.plaintexts.get(position))
        elif number in _FULL:
            self._datapath.drop("send_buffer")
        else:
            self._datapath.link_error(now, "underlay_error", endpoint, number)


def _nothing(now: float) -> None:
    """What the wake-up descriptor drains: it only ends the wait."""


def _endpoint(address: tuple[str, int]) -> Endpoint:
    """What `recvfrom` names as the source; of IPv6 the flow and scope are left out."""
    host = address[0]
    if host.startswith(_MAPPED_PREFIX) and "." in host:
        host = host[len(_MAPPED_PREFIX) :]
    return Endpoint(host, address[1])
