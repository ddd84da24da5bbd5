"""Links and addresses of the host, through netlink.

Every function opens its own socket and blocks for well under a millisecond per message; inside a running event loop
call them in a thread (`asyncio.to_thread`): pyroute2's synchronous API runs a loop of its own.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_interface
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from omninervous.errors import SystemFailure

__all__ = ["OVERLAY_ALIAS", "Interface", "add_address", "interfaces", "remove_address", "set_up_overlay"]

OVERLAY_ALIAS = "omninervous"
"""`ip link show` prints it; by it a later run knows an interface of ours."""

# <linux/if_addr.h>, <linux/if_link.h>
_IFA_F_NODAD = 0x02
_IFA_F_DEPRECATED = 0x20
_IFA_F_TENTATIVE = 0x40
_IFA_F_DADFAILED = 0x08
_IFA_F_TEMPORARY = 0x01
_IN6_ADDR_GEN_MODE_EUI64 = 0
_RT_SCOPE_UNIVERSE = 0
_ARPHRD_ETHER = 1
_ARPHRD_LOOPBACK = 772
_IFF_UP = 0x1
_IFF_LOOPBACK = 0x8
_IFF_RUNNING = 0x40
_ARPHRD_NONE = 0xFFFE
_TUNNELS = frozenset({"wireguard", "ipip", "ip6tnl", "gre", "ip6gre", "sit", "vti", "vti6", "xfrm", "vxlan", "geneve"})
_RT_TABLE_MAIN = 254
_TC_H_ROOT = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Interface:
    """One link of this namespace and its usable addresses."""

    index: int
    name: str
    up: bool
    loopback: bool
    kind: str
    """`veth`, `tun`, `bridge`, ...; empty for hardware."""
    alias: str
    bridge_port: bool
    default_route: bool
    """The main table's default route (IPv4 or IPv6) leaves here."""
    addresses: tuple[IPv4Interface | IPv6Interface, ...]
    """With global scope first, as the kernel lists them; not tentative, deprecated or temporary."""
    mtu: int = 1500
    carrier: bool = True
    """Something is plugged in."""
    tunnel: bool = False
    """Made of another network: WireGuard, a TUN device, GRE, ..."""
    gateways: tuple[str, ...] = ()
    """Of the default routes that leave here."""
    ethernet: bool = True
    """Its frames have an Ethernet header."""
    xdp: bool = False
    """An XDP program is on it, ours or another's."""


@contextlib.contextmanager
def _netlink(what: str) -> Iterator[IPRoute]:
    try:
        with IPRoute() as ipr:
            yield ipr
    except NetlinkError as error:
        raise SystemFailure(f"{what}: {error.args[1] if len(error.args) > 1 else error}") from error
    except OSError as error:
        raise SystemFailure(f"{what}: {error.strerror or error}") from error


def interfaces() -> tuple[Interface, ...]:
    """All links of this namespace."""
    with _netlink("listing the network interfaces") as ipr:
        links, addresses, defaults = list(ipr.get_links()), list(ipr.get_addr()), _default_route_links(ipr)
    by_link: dict[int, list[IPv4Interface | IPv6Interface]] = {}
    for message in addresses:
        address = _usable_address(message)
        if address is not None:
            by_link.setdefault(message["index"], []).append(address)
    return tuple(_interface(link, by_link.get(link["index"], []), defaults.get(link["index"])) for link in links)


def _interface(link: Any, addresses: list[IPv4Interface | IPv6Interface], gateways: list[str] | None) -> Interface:  # noqa: ANN401
    info = link.get_attr("IFLA_LINKINFO")
    kind = (info.get_attr("IFLA_INFO_KIND") if info else None) or ""
    return Interface(
        index=link["index"],
        name=link.get_attr("IFLA_IFNAME"),
        up=bool(link["flags"] & _IFF_UP),
        loopback=bool(link["flags"] & _IFF_LOOPBACK),
        kind=kind,
        alias=link.get_attr("IFLA_IFALIAS") or "",
        bridge_port=bool(info and info.get_attr("IFLA_INFO_SLAVE_KIND") == "bridge"),
        default_route=gateways is not None,
        mtu=link.get_attr("IFLA_MTU") or 0,
        addresses=tuple(addresses),
        carrier=bool(link["flags"] & _IFF_RUNNING),
        tunnel=kind in _TUNNELS or (kind == "tun" and link["ifi_type"] == _ARPHRD_NONE),
        gateways=tuple(gateways or ()),
        ethernet=link["ifi_type"] in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK),
        xdp=bool((xdp := link.get_attr("IFLA_XDP")) and xdp.get_attr("IFLA_XDP_ATTACHED")),
    )


def _usable_address(message: Any) -> IPv4Interface | IPv6Interface | None:  # noqa: ANN401
    # On a point-to-point link IFA_ADDRESS is the other end's; IFA_LOCAL, where there is one, is ours.
    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    flags = message.get_attr("IFA_FLAGS") or message["flags"]
    unusable = _IFA_F_DEPRECATED | _IFA_F_TENTATIVE | _IFA_F_DADFAILED
    if message["family"] == socket.AF_INET6:
        unusable |= _IFA_F_TEMPORARY
    if text is None or flags & unusable:
        return None
    return ip_interface(f"{text}/{message['prefixlen']}")


def _default_route_links(ipr: IPRoute) -> dict[int, list[str]]:
    """Links that a default route leaves by -> their gateways."""
    links: dict[int, list[str]] = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        for route in ipr.get_default_routes(family=family, table=_RT_TABLE_MAIN):
            if (index := route.get_attr("RTA_OIF")) is not None:
                links.setdefault(index, []).append(route.get_attr("RTA_GATEWAY") or "")
    return links


# ---------------------------------------------------------------- omni0


def set_up_overlay(name: str, mac: bytes, mtu: int, ula: IPv6Interface) -> tuple[int, bool]:
    """Give a fresh TAP its MAC, MTU and ULA and set it up; its index, and whether the host takes IPv6 on it."""
    with _netlink(f"interface {name}") as ipr:
        index: int = ipr.link_lookup(ifname=name)[0]
        ipr.link("set", index=index, address=mac.hex(":"), mtu=mtu, IFLA_IFALIAS=OVERLAY_ALIAS)
        _derive_link_local(ipr, index)
        _refuse_router_advertisements(name)
        _pass_straight_to_the_tap(ipr, index)
        ipr.link("set", index=index, state="up")
        try:
            ipr.addr("add", index=index, address=str(ula.ip), prefixlen=ula.network.prefixlen, flags=_IFA_F_NODAD)
        except NetlinkError as error:
            if error.code in (errno.EACCES, errno.EPERM, errno.EOPNOTSUPP):  # net.ipv6.conf.*.disable_ipv6
                return index, False
            raise
    return index, True


def _derive_link_local(ipr: IPRoute, index: int) -> None:
    """The kernel's link-local must be the EUI-64 one (RFC 4291 appendix A): peers' source guards expect it."""
    mode = ["IFLA_INET6_ADDR_GEN_MODE", _IN6_ADDR_GEN_MODE_EUI64]
    with contextlib.suppress(NetlinkError):  # a kernel without IPv6
        ipr.link("set", index=index, IFLA_AF_SPEC={"attrs": [["AF_INET6", {"attrs": [mode]}]]})


def _pass_straight_to_the_tap(ipr: IPRoute, index: int) -> None:
    """No queueing discipline: a TAP never pushes back, so one would hold nothing; and a TAP with several queues would
    get one for each of the 256 that it might have, megabytes in all."""
    with contextlib.suppress(NetlinkError):
        ipr.tc("replace", "noqueue", index, parent=_TC_H_ROOT)


def _refuse_router_advertisements(name: str) -> None:
    """Peers drop them too; this holds even when one does not. /proc/sys is read-only in some containers."""
    with contextlib.suppress(OSError):
        Path(f"/proc/sys/net/ipv6/conf/{name}/accept_ra").write_text("0")


def add_address(index: int, address: IPv4Address, prefix: int) -> None:
    """Add the address (with its on-link route); nothing happens if it is there."""
    with _netlink(f"address {address}") as ipr:
        try:
            ipr.addr("add", index=index, address=str(address), prefixlen=prefix)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise


def remove_address(index: int, address: IPv4Address | IPv6Address, prefix: int) -> None:
    """Remove the address; nothing happens if it is not there."""
    with _netlink(f"address {address}") as ipr:
        try:
            ipr.addr("del", index=index, address=str(address), prefixlen=prefix)
        except NetlinkError as error:
            if error.code not in (errno.EADDRNOTAVAIL, errno.ENODEV):
                raise
