"""Where the kernel's lane receives: which interfaces, and by which hook on each, with the reason.

A datagram of the lane that no program of ours sees is lost (userspace never opens one: a lane has one owner), so the
programs are on *every* interface that our datagrams may arrive on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from omninervous.ganglion.netlink import OVERLAY_ALIAS, Interface

__all__ = ["Hook", "bare", "choose_hook", "driver_of", "underlays"]

_KINDS_WITHOUT_XDP = frozenset(
    {"bridge", "bond", "team", "vlan", "macvlan", "ipvlan", "vxlan", "geneve", "ifb", "dummy"}
)


@dataclass(frozen=True, slots=True)
class Hook:
    """How the kernel's lane receives on an interface."""

    mechanism: str
    """`xdp` or `tc`."""
    because: str
    """Clause that completes "eth0: tc, because"."""


def underlays(present: Sequence[Interface], device: str, iface: str | None) -> tuple[Interface, ...]:
    """The interfaces that datagrams of ours may arrive on: the one of `--iface`, else all that are up and have Ethernet
    headers, loopback included (another daemon of this host may be a peer), overlays left out."""
    return tuple(
        each
        for each in present
        if each.up
        and each.ethernet
        and each.name != device
        and each.alias != OVERLAY_ALIAS
        and (each.name == iface if iface is not None else not each.bridge_port)
    )


def bare(present: Sequence[Interface], device: str, iface: str | None) -> tuple[str, ...]:
    """Names of the interfaces that datagrams of ours may arrive on without an Ethernet header, where no program of ours
    sees them: PPP, raw IP modems, tunnels that are the way out or the one of `--iface`. A tunnel beside (somebody
    else's VPN to some networks) is none: its addresses are not announced to peers."""
    return tuple(
        each.name
        for each in present
        if each.up
        and not each.ethernet
        and each.name != device
        and each.alias != OVERLAY_ALIAS
        and (each.name == iface if iface is not None else each.default_route or (each.addresses and not each.tunnel))
    )


def driver_of(interface: str) -> str:
    """Name of the driver of a network card, empty for what is made of software."""
    link = Path(f"/sys/class/net/{interface}/device/driver")
    return link.resolve().name if link.exists() else ""


def choose_hook(interface: Interface, wanted: str, driver: Callable[[str], str] = driver_of) -> Hook:
    """`wanted`: `auto`, `xdp` or `tc`. Whether a driver takes an XDP program is seen when it is attached."""
    if wanted == "tc":
        return Hook("tc", "--ebpf tc asks for it")
    if interface.xdp:
        return Hook("tc", "another XDP program is there")
    if interface.loopback:
        return Hook("tc", "loopback has no native XDP")
    if wanted == "xdp":
        return Hook("xdp", "--ebpf xdp asks for it")
    if interface.kind == "veth":
        return Hook("tc", "XDP on a veth takes segmentation offload from its other end")
    if interface.kind == "tun":
        return Hook("tc", "XDP on a TAP takes offloads from whoever writes to it")
    if interface.kind in _KINDS_WITHOUT_XDP:
        return Hook("tc", f"a {interface.kind} has no native XDP of its own")
    name = driver(interface.name)
    if name == "virtio_net":
        return Hook("tc", "virtio_net switches receive offloads off for XDP")
    if not name:
        return Hook("tc", "it has no driver that might know native XDP")
    return Hook("xdp", f"it is a card with the driver {name}")
