"""Stock WireGuard peers, all in one process: each shakes hands with a contestant, and stays silent from then on."""

from __future__ import annotations

import base64
import os
import socket
import time
from ipaddress import IPv4Address

from omninervous.core.cookies import MacGenerator
from omninervous.core.noise import ZERO_PSK, Initiator, StaticKeys
from omninervous.core.session import Session
from omninervous.core.tai64n import Tai64nClock
from omninervous.errors import OmniError, SystemFailure
from omninervous.hostos.clock import now
from omninervous.wire.address import Endpoint
from omninervous.wire.handshake import COOKIE_REPLY_SIZE, decode_cookie_reply
from omninervous.wire.keytext import encode_wireguard_key

__all__ = ["Crowd"]

_FIRST = IPv4Address("10.66.0.1")
_PATIENCE = 5.0
"""Seconds for an answer."""
_SESSION_SECONDS = 180.0


class Crowd:
    """So many peers with keys of their own."""

    def __init__(self, size: int) -> None:
        self._members = [StaticKeys(os.urandom(32)) for _ in range(size)]
        self._clock = Tai64nClock(None)

    def members(self) -> list[tuple[str, str]]:
        """WireGuard public key and allowed address of each."""
        return [
            (encode_wireguard_key(member.public), f"{_FIRST + number}/32")
            for number, member in enumerate(self._members)
        ]

    def shake_hands(self, own: socket.socket, target: Endpoint, key: str) -> None:
        """In turn, from one socket, with the owner of a WireGuard public key; each confirms its session by a keepalive.
        SystemFailure if one gets none."""
        own.settimeout(_PATIENCE)
        remote = base64.b64decode(key)
        macs = MacGenerator(remote)
        for index, member in enumerate(self._members, start=1):
            initiator = Initiator.create(member, remote, ZERO_PSK, self._clock.next(time.time()), index, os.urandom)
            try:
                answer = _ask(own, target, macs, initiator.message)
                session = Session(initiator.finish(answer).install(now().boot + _SESSION_SECONDS))
            except (OSError, OmniError) as error:
                raise SystemFailure(f"peer {index} of {len(self._members)} got no session: {error}") from error
            own.sendto(session.seal(b""), target)


def _ask(own: socket.socket, target: Endpoint, macs: MacGenerator, message: bytes) -> bytes:
    """The response to an initiation. Whoever is under load wants a cookie first."""
    own.sendto(macs.sign(now().boot, message), target)
    answer = own.recv(2048)
    if len(answer) != COOKIE_REPLY_SIZE:
        return answer
    macs.handle_reply(now().boot, decode_cookie_reply(answer))
    own.sendto(macs.sign(now().boot, message), target)
    return own.recv(2048)
