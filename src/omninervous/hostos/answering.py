"""An answer leaves from the address that was written to (RFC 1122, section 4.1.3.5).

A host may have several: one that floats between two servers, two uplinks. A socket bound to none of them sends from the
one that the routes prefer, and a NAT in front of whoever asked does not let that in.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections import OrderedDict

from omninervous.hostos.udp import UdpSockets
from omninervous.wire.address import Endpoint

__all__ = ["Answering"]

REMEMBERED = 65536
"""Endpoints that wrote to another address than most do; the one silent for longest goes first."""
_IP_PKTINFO = 8
"""<linux/in.h>; not in Python's socket module."""
_NOT_OURS = (errno.ENETUNREACH, errno.EINVAL)
"""What IPv4 and IPv6 say to an address that the host has no more."""
_ANCILLARY_SPACE = 64

_Control = tuple[int, int, bytes]


class Answering:
    """Both directions of a pair of sockets. Where the system does not say which address was written to, it chooses."""

    def __init__(self, sockets: UdpSockets) -> None:
        self._sockets = sockets
        self._usual: dict[int, _Control] = {}  # by address family: our address that was written to first
        self._others: OrderedDict[Endpoint, _Control] = OrderedDict()
        if sys.platform == "linux":
            sockets.v4.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        if sockets.v6 is not None:
            sockets.v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)

    def receive(self, udp: socket.socket, size: int) -> tuple[bytes, Endpoint]:
        """The next datagram, up to `size` bytes of it, and where it came from. OSError as `recvmsg` raises it."""
        data, ancillary, _, address = udp.recvmsg(size, _ANCILLARY_SPACE)
        source = Endpoint(address[0], address[1])
        for level, kind, value in ancillary:
            self._note(udp.family, source, _answering(level, kind, value))
        return data, source

    def _note(self, family: int, source: Endpoint, control: _Control) -> None:
        if self._usual.setdefault(family, control) == control:
            self._others.pop(source, None)
            return
        self._others[source] = control
        self._others.move_to_end(source)
        if len(self._others) > REMEMBERED:
            self._others.popitem(last=False)

    def send(self, data: bytes, to: Endpoint) -> bool:
        """Send a datagram; False where there is no socket of its IP version. OSError as `sendmsg` raises it."""
        udp = self._sockets.v6 if ":" in to.host else self._sockets.v4
        if udp is None:
            return False
        control = self._others.get(to) or self._usual.get(udp.family)
        if control is not None:
            try:
                udp.sendmsg([data], [control], 0, to)
                return True
            except OSError as error:
                if error.errno not in _NOT_OURS:
                    raise
                self._forget(udp.family, to)
        udp.sendto(data, to)
        return True

    def _forget(self, family: int, to: Endpoint) -> None:
        if self._others.pop(to, None) is None:
            self._usual.pop(family, None)


def _answering(level: int, kind: int, value: bytes) -> _Control:
    """From what came with a datagram (`struct in_pktinfo`, `in6_pktinfo`) to what goes with its answer: the address,
    by whatever interface."""
    if level == socket.IPPROTO_IPV6:
        return level, kind, value[:16] + bytes(4)
    return level, kind, bytes(4) + value[4:8] + bytes(4)
