"""The underlay as peers see it: where this host may be reached, by which networks and gateways; and when it changes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from omninervous.core.pathkind import Network
from omninervous.ganglion.netlink import OVERLAY_ALIAS, Interface
from omninervous.wire.address import Endpoint

__all__ = ["MAX_CANDIDATES", "AddressMonitor", "Underlay", "underlay", "with_mapped"]

MAX_CANDIDATES = 8
"""What REGISTER carries (docs/PROTOCOL.md)."""

_OURS = re.compile(r"omni\d+")
_CONTAINER_BRIDGE = re.compile(r"docker\d+|br-[0-9a-f]{12}|cni\d+|cni-.*|virbr\d+|lxcbr\d+|lxdbr\d+|podman\d+")
"""Bridges whose addresses are the same on every host that runs containers: nobody reaches *this* host by them."""


@dataclass(frozen=True, slots=True)
class Underlay:
    """If one differs from the next, the way to everybody may have changed."""

    candidates: tuple[Endpoint, ...]
    """Endpoints to announce, the NIC of the default route first, at most MAX_CANDIDATES."""
    networks: tuple[Network, ...]
    """That our interfaces are on."""
    ways_out: tuple[tuple[str, tuple[str, ...]], ...]
    """NICs with a default route, and the gateways."""


def underlay(
    present: Sequence[Interface], port: int, *, device: str, iface: str | None = None, ipv6: bool = True
) -> Underlay:
    """What the interfaces amount to. Left out: loopback and link-local addresses, what has no carrier, the overlay
    itself (ours and other daemons'), container bridges and tunnels."""
    usable = [each for each in present if _usable(each, device, iface)]
    usable.sort(key=lambda each: not each.default_route)
    addresses = [
        address
        for interface in usable
        for address in interface.addresses
        if not (address.ip.is_link_local or address.ip.is_loopback) and (ipv6 or address.version == 4)
    ]
    return Underlay(
        tuple(dict.fromkeys(Endpoint(str(address.ip), port) for address in addresses))[:MAX_CANDIDATES],
        tuple(dict.fromkeys(address.network for address in addresses)),
        tuple((each.name, each.gateways) for each in usable if each.default_route),
    )


def with_mapped(candidates: Sequence[Endpoint], mapped: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """What to announce: the gateways' ports that lead to us, and our own addresses. Who reads it may have no room for
    the last ones, and behind a hard NAT the mapped one is the only one that works."""
    return tuple(dict.fromkeys((*mapped, *candidates)))[:MAX_CANDIDATES]


def _usable(interface: Interface, device: str, iface: str | None) -> bool:
    if iface is not None:
        return interface.name == iface
    return (
        interface.up
        and interface.carrier
        and not interface.loopback
        and not interface.bridge_port
        and not interface.tunnel
        and interface.name != device
        and interface.alias != OVERLAY_ALIAS
        and not _OURS.fullmatch(interface.name)
        and not _CONTAINER_BRIDGE.fullmatch(interface.name)
    )


class AddressMonitor:
    """Calls back when links, addresses or routes of the host have changed; news that come together make one call."""

    SOON = 0.005
    """Seconds after the first news: what belongs to it is there by then."""
    APART = 0.03
    """Seconds between two calls, at least: a machine may start a hundred containers."""
    # <linux/rtnetlink.h>: RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, and the two ROUTE groups
    _GROUPS = 0x1 | 0x10 | 0x100 | 0x40 | 0x400

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._not_before = 0.0

    def start(self) -> None:
        """Begin to listen, inside the event loop. Does nothing where there is no netlink."""
        if sys.platform != "linux":
            return
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setblocking(False)
        self._socket.bind((0, self._GROUPS))
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    def close(self) -> None:
        """Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(OSError):  # ENOBUFS: news were lost, but that is news too
            while self._socket.recv(65536):
                pass
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time() + self.SOON, self._not_before), self._call)

    def _call(self) -> None:
        self._timer = None
        self._not_before = asyncio.get_running_loop().time() + self.APART
        self._changed()
