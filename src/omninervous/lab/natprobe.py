"""What a NAT does, as seen from outside: a STUN-like probe between a client behind it and two public hosts."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise

from omninervous.lab.nat import NatBehaviour
from omninervous.lab.topology import Host

__all__ = ["CLIENT_PORT", "Observation", "observe"]

CLIENT_PORT = 40123
_FIRST_PORT = 3478
_PATIENCE = 0.4
"""Seconds after which a datagram counts as lost; between namespaces one takes well under a millisecond."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What the probe saw."""

    behaviour: NatBehaviour
    mapped: tuple[tuple[str, int], ...]
    """The client's outside address and port as each of three server sockets saw it."""


def observe(client: Host, first: Host, second: Host, stranger: Host, port: int = _FIRST_PORT) -> Observation:
    """Probe with three server sockets: two ports of `first`, one of `second`; then from places never contacted.

    `first` has a third socket, on a port that the client never writes to; `stranger` is a host it never writes to.
    The servers use `port` and the two after it: probes that run side by side need ports of their own.
    """
    with ExitStack() as stack:

        def udp(host: Host, port: int) -> socket.socket:
            made = stack.enter_context(host.namespace.udp_socket(str(host.address), port))
            made.settimeout(_PATIENCE)
            return made

        inside = udp(client, CLIENT_PORT)
        servers = [udp(first, port), udp(first, port + 1), udp(second, port)]
        mapped = []
        for server in servers:
            inside.sendto(b"where am I", server.getsockname())
            source = _receive(server)
            if source is None:
                return Observation(NatBehaviour(passes=False), ())
            mapped.append(source)
        if not all(_reaches(server, seen, inside) for server, seen in zip(servers, mapped, strict=True)):
            return Observation(NatBehaviour(passes=False), tuple(mapped))
        other_port, other_host = udp(first, port + 2), udp(stranger, port)
        behaviour = NatBehaviour(
            passes=True,
            same_mapping=len(set(mapped)) == 1,
            from_other_port=_reaches(other_port, mapped[0], inside),
            from_other_host=_reaches(other_host, mapped[0], inside),
            counts=all(later[1] == earlier[1] + 1 for earlier, later in pairwise(mapped)),
        )
        return Observation(behaviour, tuple(mapped))


def _reaches(server: socket.socket, mapped: tuple[str, int], inside: socket.socket) -> bool:
    server.sendto(b"you are there", mapped)
    return _receive(inside) is not None


def _receive(receiver: socket.socket) -> tuple[str, int] | None:
    try:
        _, source = receiver.recvfrom(2048)
    except TimeoutError:
        return None
    return str(source[0]), int(source[1])
