"""UDP sockets of the underlay: IPv4 and IPv6 on one port, Don't Fragment set, room for bursts."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omninervous.errors import SystemFailure, UserError

__all__ = ["UdpQueues", "UdpSockets", "bind_udp", "bind_udp_queues", "port_holder"]

BUFFER_BYTES = 4 << 20
"""Asked of the kernel for each direction; without CAP_NET_ADMIN it gives net.core.{r,w}mem_max."""
_PORT_TRIES = 16
"""Port 0: tries to find one that is free for both families."""

# <linux/in.h>, <linux/in6.h>, <asm-generic/socket.h>: not all of them are in Python's socket module.
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_IPV6_DONTFRAG = 62
_PMTUDISC_PROBE = 3
"""Set DF and ignore the path MTU that ICMP claims: a forged ICMP message must not shrink our datagrams."""
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33


@dataclass(frozen=True, slots=True)
class UdpSockets:
    """Non-blocking sockets bound to the same port. `v6` is None where the host has no IPv6."""

    v4: socket.socket
    v6: socket.socket | None
    port: int

    def __iter__(self) -> Iterator[socket.socket]:
        yield self.v4
        if self.v6 is not None:
            yield self.v6

    def close(self) -> None:
        """Idempotent."""
        for each in self:
            each.close()


@dataclass(frozen=True, slots=True)
class UdpQueues:
    """Several `UdpSockets` that share one port (SO_REUSEPORT), in the order of binding."""

    queues: tuple[UdpSockets, ...]
    lock: socket.socket | None
    """Held while the port is shared: the kernel lets anybody of the same user join it, a second daemon must not."""

    @property
    def port(self) -> int:
        return self.queues[0].port

    @property
    def v6(self) -> socket.socket | None:
        """None where the host has no IPv6."""
        return self.queues[0].v6

    @property
    def buffer_note(self) -> str:
        """What is wrong with the room for bursts, and the remedy; empty if all is well."""
        given = min(_buffer_bytes(each) for queue in self.queues for each in queue)
        if given >= BUFFER_BYTES:
            return ""
        return (
            f"the kernel gives UDP sockets {given >> 10} KiB for bursts instead of {BUFFER_BYTES >> 10} KiB, so fast "
            f"peers may lose packets: sysctl -w net.core.rmem_max={BUFFER_BYTES} net.core.wmem_max={BUFFER_BYTES}"
        )

    def close(self) -> None:
        """Idempotent."""
        for each in self.queues:
            each.close()
        if self.lock is not None:
            self.lock.close()


def bind_udp(port: int, device: str | None = None) -> UdpSockets:
    """Sockets on `port` (0: any free one), of one NIC only if `device` is given.

    UserError if the port is taken or not ours to use, or the device is refused.
    """
    for _ in range(_PORT_TRIES):
        v4 = _bind(socket.AF_INET, port, device)
        if v4 is None:
            raise SystemFailure("this host has no IPv4: load the kernel's IPv4 support")
        chosen = v4.getsockname()[1]
        try:
            return UdpSockets(v4, _bind(socket.AF_INET6, chosen, device), chosen)
        except UserError:
            v4.close()
            if port:
                raise
    raise SystemFailure("no UDP port is free for both IPv4 and IPv6: name one with --port")


def bind_udp_queues(port: int, device: str | None, count: int) -> UdpQueues:
    """So many sockets of each family on one port, as `bind_udp` makes one."""
    # Without SO_REUSEPORT: fails if anybody has the port, also somebody who would share it.
    alone = bind_udp(port, device)
    if count == 1:
        return UdpQueues((alone,), None)
    port = alone.port
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    queues: list[UdpSockets] = []
    try:
        # An abstract name belongs to the network namespace, as the port does, and goes with its socket.
        lock.bind(f"\0omninervous udp {port} {device or ''}")
        has_v6 = alone.v6 is not None
        alone.close()
        for _ in range(count):
            v4 = _bind(socket.AF_INET, port, device, shared=True)
            assert v4 is not None, "there was IPv4 a moment ago"
            v6 = _bind(socket.AF_INET6, port, device, shared=True) if has_v6 else None
            queues.append(UdpSockets(v4, v6, port))
    except (OSError, UserError, SystemFailure) as error:
        alone.close()
        UdpQueues(tuple(queues), lock).close()
        if isinstance(error, OSError):
            raise _bind_error(error, port) from error
        raise
    return UdpQueues(tuple(queues), lock)


def _bind(family: socket.AddressFamily, port: int, device: str | None, *, shared: bool = False) -> socket.socket | None:
    try:
        udp = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return None
        raise SystemFailure(f"UDP socket: {error.strerror}") from error
    try:
        udp.setblocking(False)
        if shared:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _bind_device(udp, device)
        _set_dont_fragment(udp, family)
        _grow_buffers(udp)
        udp.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
    except OSError as error:
        udp.close()
        if family == socket.AF_INET6 and error.errno == errno.EADDRNOTAVAIL:
            return None  # net.ipv6.conf.all.disable_ipv6
        raise _bind_error(error, port) from error
    except UserError:
        udp.close()
        raise
    return udp


def _bind_error(error: OSError, port: int) -> UserError | SystemFailure:
    if error.errno == errno.EADDRINUSE:
        holder = port_holder(port)
        return UserError(f"UDP port {port} is in use{f' by {holder}' if holder else ''}: choose another with --port")
    if error.errno in (errno.EACCES, errno.EPERM):
        return UserError(f"UDP port {port} is not open to this user: choose one from 1024 on with --port")
    return SystemFailure(f"UDP port {port}: {error.strerror}")


def _bind_device(udp: socket.socket, device: str | None) -> None:
    if device is None:
        return
    try:
        if sys.platform == "linux":
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    except OSError as error:
        reason = "there is no such interface" if error.errno == errno.ENODEV else error.strerror
        raise UserError(f"--iface {device}: {reason}") from error


def _set_dont_fragment(udp: socket.socket, family: socket.AddressFamily) -> None:
    if sys.platform != "linux":
        return
    if family == socket.AF_INET:
        udp.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
    else:
        udp.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
        udp.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)


def _grow_buffers(udp: socket.socket) -> None:
    for forced, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            udp.setsockopt(socket.SOL_SOCKET, forced, BUFFER_BYTES)
        except OSError:
            with contextlib.suppress(OSError):
                udp.setsockopt(socket.SOL_SOCKET, plain, BUFFER_BYTES)


def _buffer_bytes(udp: socket.socket) -> int:
    """The smaller direction's. The kernel doubles what it is asked for (socket(7))."""
    options = (socket.SO_RCVBUF, socket.SO_SNDBUF)
    return min(udp.getsockopt(socket.SOL_SOCKET, option) for option in options) // 2


def port_holder(port: int) -> str | None:
    """`name (pid N)` of a process that holds the UDP port, None if that cannot be seen (another user's, not Linux)."""
    inodes = {f"socket:[{inode}]" for inode in _socket_inodes(port)}
    if not inodes:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if _holds(process, inodes):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue
    return None


def _holds(process: Path, inodes: set[str]) -> bool:
    for descriptor in os.listdir(process / "fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if os.readlink(process / "fd" / descriptor) in inodes:
                return True
    return False


def _socket_inodes(port: int) -> Iterator[str]:
    """proc(5), /proc/net/udp: local_address is field 1 (`hex:hexport`), inode is field 9."""
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
