"""Asks a machine from here: does a Nucleus answer there, does the machine answer at all. For `omni doctor`."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time
from enum import Enum

from omninervous.errors import DecodeError
from omninervous.wire.address import Endpoint
from omninervous.wire.hello import NONCE_SIZE, Hello, decode_hello_reply

__all__ = ["Answer", "answers_ping", "ask_nucleus", "try_to_send"]

ATTEMPTS = 4
PATIENCE = 0.7
"""Seconds that an answer may take."""


class Answer(Enum):
    """What became of a datagram."""

    HEARD = "answered"
    SILENCE = "no answer"
    FORBIDDEN = "our own firewall refuses it"
    REFUSED = "nobody listens there"
    NO_ROUTE = "no route"


def ask_nucleus(endpoint: Endpoint) -> Answer:
    """HELLO, a few times."""
    nonce = os.urandom(NONCE_SIZE)
    hello = Hello(nonce).encode()
    with _udp(endpoint) as udp:
        for _ in range(ATTEMPTS):
            if (trouble := _send(udp, endpoint, hello)) is not None:
                return trouble
            try:
                while select.select([udp], [], [], PATIENCE)[0]:
                    with contextlib.suppress(DecodeError):
                        if decode_hello_reply(udp.recv(2048)).nonce == nonce:
                            return Answer.HEARD
            except OSError as error:
                if error.errno == errno.ECONNREFUSED:
                    return Answer.REFUSED
                return Answer.NO_ROUTE
    return Answer.SILENCE


def try_to_send(endpoint: Endpoint) -> Answer:
    """Whether the kernel lets a datagram out to there at all. Nobody answers it: edges are silent."""
    with _udp(endpoint) as udp:
        return _send(udp, endpoint, b"\0") or Answer.SILENCE


def answers_ping(host: str) -> bool | None:
    """ICMP echo; None if it cannot be asked (IPv6, no privilege)."""
    if ":" in host:
        return None
    try:
        icmp = _icmp()
    except OSError:
        return None
    with icmp:
        for sequence in range(1, ATTEMPTS + 1):
            packet = _echo(sequence)
            try:
                icmp.sendto(packet, (host, 0))
            except OSError:
                return False
            deadline = time.monotonic() + PATIENCE
            while (left := deadline - time.monotonic()) > 0 and select.select([icmp], [], [], left)[0]:
                data, source = icmp.recvfrom(2048)
                body = data[(data[0] & 0xF) * 4 :] if icmp.type == socket.SOCK_RAW else data
                if source[0] == host and body[:1] == b"\0" and body[8:] == packet[8:]:
                    return True
    return False


def _udp(endpoint: Endpoint) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET, socket.SOCK_DGRAM)


def _send(udp: socket.socket, endpoint: Endpoint, data: bytes) -> Answer | None:
    """None: it is on its way. Connected, so that an ICMP error comes back to us."""
    try:
        udp.connect(endpoint)
        udp.send(data)
    except OSError as error:
        match error.errno:
            case errno.EPERM | errno.EACCES:
                return Answer.FORBIDDEN
            case errno.ECONNREFUSED:
                return Answer.REFUSED
            case _:
                return Answer.NO_ROUTE
    return None


def _icmp() -> socket.socket:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        with contextlib.suppress(PermissionError):
            return socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP)
    raise PermissionError


def _echo(sequence: int) -> bytes:
    """An echo request (RFC 792) with eight bytes of its own."""
    head, data = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, sequence), os.urandom(8)
    words = struct.unpack("!8H", head + data)
    total = sum(words)
    total = (total >> 16) + (total & 0xFFFF)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return b"".join((head[:2], checksum.to_bytes(2, "big"), head[4:], data))
