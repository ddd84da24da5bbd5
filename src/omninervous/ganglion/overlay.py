"""omni0 as the daemon uses it: its fixed address, and the VIP that may change."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Interface

import structlog

from omninervous.core.events import Problem
from omninervous.errors import SystemFailure
from omninervous.ganglion import netlink

__all__ = ["ULA_PREFIX_LENGTH", "Overlay"]

log = structlog.get_logger()

ULA_PREFIX_LENGTH = 64
"""All edges are on one link (design: one on-link /64)."""


class Overlay:
    """The overlay interface after set-up. Its methods block on netlink: call them in a thread, one at a time."""

    def __init__(self, name: str, index: int, mac: bytes, mtu: int, ipv6: bool) -> None:
        self.name = name
        self.mtu = mtu
        self.index = index
        self.mac = mac
        self.ipv6 = ipv6
        self._vip: tuple[IPv4Address, int] | None = None
        self._conflict = ""
        self._mtu_now = mtu

    @classmethod
    def set_up(cls, name: str, mac: bytes, mtu: int, ula: IPv6Address) -> Overlay:
        """Configure a fresh TAP and set it up."""
        index, ipv6 = netlink.set_up_overlay(name, mac, mtu, IPv6Interface((ula, ULA_PREFIX_LENGTH)))
        if not ipv6:
            log.warning("note", text=f"this host has IPv6 switched off: {name} has no IPv6 address")
        return cls(name, index, mac, mtu, ipv6)

    def set_vip(self, address: IPv4Address, prefix: int) -> None:
        """Give the interface this VIP instead of the earlier one."""
        if self._vip == (address, prefix):
            return
        self.drop_vip()
        elsewhere = [
            each.name
            for each in netlink.interfaces()
            if each.index != self.index and any(known.ip == address for known in each.addresses)
        ]
        self._conflict = f"{address} is in use on {elsewhere[0]} of this machine" if elsewhere else ""
        if elsewhere:
            raise SystemFailure(f"{self._conflict}: choose an address with --vip")
        netlink.add_address(self.index, address, prefix)
        self._vip = (address, prefix)

    def drop_vip(self) -> None:
        """Take the VIP off the interface."""
        if self._vip is not None:
            netlink.remove_address(self.index, *self._vip)
            self._vip = None

    def exists(self) -> bool:
        """Whether it is still there: whoever may configure networks can delete it under us."""
        try:
            socket.if_indextoname(self.index)
        except OSError:
            return False
        return True

    def notice(self, present: Iterable[netlink.Interface]) -> None:
        """How the kernel has it now: whoever may configure networks can change it under us."""
        self._mtu_now = next((each.mtu for each in present if each.index == self.index), self.mtu)

    def problems(self) -> tuple[Problem, ...]:
        """What keeps the VIP off the interface, or was changed in it."""
        found = []
        if self._conflict:
            found.append(Problem("vip_in_use_here", f"{self._conflict}: choose an address with --vip", self.name))
        if self._mtu_now != self.mtu:
            text = f"{self.name} was set to MTU {self._mtu_now}, not {self.mtu}: ip link set {self.name} mtu {self.mtu}"
            found.append(Problem("mtu_changed", text, self.name))
        return tuple(found)
