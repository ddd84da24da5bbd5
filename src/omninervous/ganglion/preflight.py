"""What the host must grant before an edge starts. Looks only; changes nothing but a leftover interface of ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from ipaddress import IPv4Interface, IPv4Network

from omninervous.errors import UserError
from omninervous.ganglion.config import EdgeConfig
from omninervous.ganglion.netlink import OVERLAY_ALIAS, Interface
from omninervous.ganglion.tap import TUN_DEVICE, Tap, tap_holder
from omninervous.hostos.process import CAP_NET_ADMIN, has_capability

__all__ = ["check_device_free", "check_interface", "check_privileges", "check_vip_free", "overlap_notes"]


def check_privileges() -> None:
    """CAP_NET_ADMIN and /dev/net/tun; UserError names what is missing."""
    if sys.platform != "linux":
        raise UserError(f"an edge needs Linux for now, this is {sys.platform}: run it on a Linux machine")
    if not has_capability(CAP_NET_ADMIN):
        raise UserError("an edge needs CAP_NET_ADMIN to make its interface: run it as root (sudo omni-daemon ...)")
    try:
        os.close(os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise UserError(
            f"there is no {TUN_DEVICE}: load the module (modprobe tun), or give it to the container "
            f"(--device={TUN_DEVICE})"
        ) from None
    except OSError as error:
        raise UserError(
            f"{TUN_DEVICE} cannot be opened: {error.strerror}; load the module (modprobe tun), or allow the device"
        ) from error


def check_interface(name: str, present: Sequence[Interface]) -> None:
    """The underlay NIC of --iface."""
    found = next((each for each in present if each.name == name), None)
    if found is None:
        there = ", ".join(each.name for each in present if not each.loopback) or "none"
        raise UserError(f"--iface {name}: there is no such interface; there are: {there}")
    if not found.up:
        raise UserError(f"--iface {name}: the interface is down, set it up first (ip link set {name} up)")


def check_device_free(config: EdgeConfig, present: Sequence[Interface]) -> None:
    """The overlay's name must be free; a leftover of ours that nobody holds is removed."""
    name = config.device
    if config.iface == name:
        raise UserError(f"--iface {name} is also the name of the overlay interface: choose another with --dev")
    found = next((each for each in present if each.name == name), None)
    if found is None:
        return
    if found.kind == "tun" and found.alias == OVERLAY_ALIAS:
        Tap.remove_leftover(name)
        return
    holder = tap_holder(name) if found.kind == "tun" else None
    raise UserError(
        f"interface {name} exists already and is not OmniNervous's{f' (in use by {holder})' if holder else ''}: "
        f"choose another name with --dev, or remove it (ip link del {name})"
    )


def check_vip_free(config: EdgeConfig, present: Sequence[Interface]) -> None:
    """No other interface of this host may have the VIP."""
    if config.claim is None:
        return
    for interface in present:
        if interface.name != config.device and any(each.ip == config.claim.address for each in interface.addresses):
            raise UserError(
                f"--vip {config.claim.address} is in use on {interface.name} of this machine: choose another address"
            )


def overlap_notes(overlay: IPv4Network, device: str, present: Sequence[Interface]) -> tuple[str, ...]:
    """A sentence for each interface whose network overlaps the overlay's: its route may hide VIPs, or be hidden."""
    return tuple(
        f"{each.network} on {interface.name} overlaps the overlay's {overlay}: addresses in both go one way only; "
        f"choose another range with --vip ADDR/LEN"
        for interface in present
        if interface.name != device and interface.alias != OVERLAY_ALIAS
        for each in interface.addresses
        if isinstance(each, IPv4Interface) and each.network.prefixlen > 0 and each.network.overlaps(overlay)
    )
