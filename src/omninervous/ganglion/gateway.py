"""One way out of this host, and how its gateway is asked for a UDP port: PCP, NAT-PMP, UPnP-IGD, in this order.

Only the default gateway is asked, and only it is heard: the sockets are connected, and what UPnP says about itself must
lie at the gateway's own address. Every answer is bounded in size and in number.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TypeVar

from omninervous.errors import DecodeError, RemoteError
from omninervous.ganglion import igd
from omninervous.wire import portmap
from omninervous.wire.address import Endpoint

__all__ = ["LIFETIME", "PROTOCOLS", "Lease", "Way", "ask", "connected_udp", "exchange"]

T = TypeVar("T")

LIFETIME = 600
"""Seconds that we ask for: a gateway that was switched off and on without a word gets its mapping back within half."""
_LONGEST = 86400
_TRIES = (0.25, 0.5, 1.0)
"""Seconds to wait after each copy of a request (RFC 6886 section 3.1 begins so)."""
_STRAY = 16
"""Datagrams per request that are looked at: the gateway itself must not keep us busy."""
_LONGEST_ANSWER = 1100
"""Bytes (RFC 6887 section 7)."""


@dataclass(frozen=True, slots=True)
class Way:
    """A default route: the NIC, the gateway, and our address there."""

    nic: str
    gateway: IPv4Address
    client: IPv4Address


@dataclass(frozen=True, slots=True)
class Lease:
    """A port of the gateway that leads to us."""

    protocol: str
    outside: Endpoint
    seconds: int
    """How long it holds; 0: until it is deleted."""
    token: bytes = b""
    """PCP's nonce, UPnP's control address: what its renewal and its end need."""
    epoch: int | None = None
    """The gateway's when it gave it; UPnP has none."""


async def ask(way: Way, port: int, earlier: Lease | None, *, lifetime: int = LIFETIME) -> Lease | None:
    """A mapping to our UDP `port`, or None if no protocol gives one. Never raises.

    With `earlier` that one is renewed, or deleted if `lifetime` is 0.
    """
    protocols = PROTOCOLS if earlier is None else {earlier.protocol: PROTOCOLS[earlier.protocol]}
    for protocol in protocols.values():
        try:
            lease = await protocol(way, port, earlier, lifetime)
        except (OSError, ValueError, RemoteError):  # ValueError: also what urllib says of a URL
            continue
        if _reachable(lease.outside):
            return lease
    return None


def _reachable(outside: Endpoint) -> bool:
    """Whether the address can be one of somebody. A private one may be: peers behind the same carrier reach it."""
    address = IPv4Address(outside.host)
    return not (address.is_multicast or address.is_unspecified or address.is_loopback or address.is_link_local)


async def _pcp(way: Way, port: int, earlier: Lease | None, lifetime: int) -> Lease:
    nonce = os.urandom(portmap.NONCE_SIZE) if earlier is None else earlier.token
    wanted = port if earlier is None else earlier.outside.port
    request = portmap.encode_pcp_mapping(nonce, way.client, port, wanted, lifetime)
    with connected_udp(way, portmap.GATEWAY_PORT) as udp:
        given = await exchange(udp, request, lambda data: portmap.decode_pcp_mapping(data, nonce, port))
    assert given.address is not None
    return Lease("pcp", Endpoint(str(given.address), given.port), _bounded(given.lifetime), nonce, given.epoch)


async def _nat_pmp(way: Way, port: int, earlier: Lease | None, lifetime: int) -> Lease:
    wanted = port if earlier is None else earlier.outside.port
    with connected_udp(way, portmap.GATEWAY_PORT) as udp:
        address = await exchange(udp, portmap.encode_pmp_address(), portmap.decode_pmp_address)
        # RFC 6886 section 3.4: a deletion asks for the outside port 0.
        request = portmap.encode_pmp_mapping(port, wanted if lifetime else 0, lifetime)
        given = await exchange(udp, request, lambda data: portmap.decode_pmp_mapping(data, port))
    return Lease("nat-pmp", Endpoint(str(address), given.port), _bounded(given.lifetime), epoch=given.epoch)


async def _upnp(way: Way, port: int, earlier: Lease | None, lifetime: int) -> Lease:
    if earlier is not None:
        control = igd.Control.from_token(earlier.token)
    else:
        with connected_udp(way, igd.SSDP_PORT) as udp:
            location = await exchange(udp, igd.search_for(way.gateway), lambda data: igd.location_of(data, way.gateway))
        control = await igd.find_control(location)
    if not lifetime:
        assert earlier is not None
        await igd.delete(control, earlier.outside.port)
        return Lease("upnp", earlier.outside, 0, control.token)
    wanted = port if earlier is None else earlier.outside.port
    outside, seconds = await igd.add(control, way.client, port, wanted, lifetime)
    return Lease("upnp", outside, seconds, control.token)


PROTOCOLS = {"pcp": _pcp, "nat-pmp": _nat_pmp, "upnp": _upnp}


def _bounded(seconds: int) -> int:
    return min(max(seconds, 1), _LONGEST)


@contextlib.contextmanager
def connected_udp(way: Way, port: int) -> Generator[socket.socket, None, None]:
    """A socket that hears the gateway's port alone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setblocking(False)
        if sys.platform == "linux":  # two uplinks may have the same addresses
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, way.nic.encode())
        udp.bind((str(way.client), 0))
        udp.connect((str(way.gateway), port))
        yield udp


async def exchange(udp: socket.socket, request: bytes, decode: Callable[[bytes], T]) -> T:
    """Send until something comes that `decode` takes. TimeoutError, or the OSError of a closed port."""
    loop = asyncio.get_running_loop()
    strays = 0
    for wait in _TRIES:
        udp.send(request)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                while True:
                    data = await loop.sock_recv(udp, _LONGEST_ANSWER)
                    try:
                        return decode(data)
                    except DecodeError:
                        strays += 1
                        if strays >= _STRAY:
                            raise
    raise TimeoutError
