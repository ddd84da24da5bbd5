"""On which interfaces the kernel's lane receives, and by which hook."""

from __future__ import annotations

from ipaddress import IPv4Interface

import pytest

from omninervous.ganglion.netlink import OVERLAY_ALIAS, Interface
from omninervous.ganglion.underlay import bare, choose_hook, underlays


def nic(name: str, **more: object) -> Interface:
    facts: dict[str, object] = {"index": 1, "up": True, "loopback": False, "kind": "", "alias": ""}
    facts |= {"bridge_port": False, "default_route": False, "addresses": (), **more}
    return Interface(name=name, **facts)  # type: ignore[arg-type]


PRESENT = (
    nic("lo", loopback=True),
    nic("eth0", default_route=True),
    nic("eth1", up=False),
    nic("wg0", ethernet=False, kind="wireguard"),
    nic("br0", kind="bridge"),
    nic("veth7", kind="veth", bridge_port=True),
    nic("omni0", kind="tun"),
    nic("omni1", kind="tun", alias=OVERLAY_ALIAS),
)


def test_whatever_may_bring_our_datagrams_is_covered() -> None:
    assert [each.name for each in underlays(PRESENT, "omni0", None)] == ["lo", "eth0", "br0"]


def test_where_no_program_sees_our_datagrams_is_known() -> None:
    here = (IPv4Interface("198.51.100.7/32"),)
    assert bare(PRESENT, "omni0", None) == (), "a VPN to some networks is not the way to us"
    assert bare(PRESENT, "omni0", "wg0") == ("wg0",)
    out = nic("wg1", ethernet=False, kind="wireguard", tunnel=True, default_route=True, addresses=here)
    modem = nic("wwan0", ethernet=False, addresses=here)
    down = nic("ppp0", ethernet=False, default_route=True, up=False)
    assert bare((*PRESENT, out, modem, down), "omni0", None) == ("wg1", "wwan0")
    assert bare((*PRESENT, out, modem), "omni0", "eth0") == ()


def test_iface_means_this_one_alone() -> None:
    assert [each.name for each in underlays(PRESENT, "omni0", "eth0")] == ["eth0"]
    assert [each.name for each in underlays(PRESENT, "omni0", "veth7")] == ["veth7"]
    assert underlays(PRESENT, "omni0", "eth1") == ()


@pytest.mark.parametrize(
    ("interface", "driver", "mechanism", "word"),
    [
        (nic("eth0"), "mlx5_core", "xdp", "mlx5_core"),
        (nic("eth0"), "virtio_net", "tc", "virtio_net"),
        (nic("eth0"), "", "tc", "no driver"),
        (nic("eth0", kind="veth"), "", "tc", "veth"),
        (nic("tap0", kind="tun"), "", "tc", "TAP"),
        (nic("br0", kind="bridge"), "", "tc", "bridge"),
        (nic("eth0", xdp=True), "mlx5_core", "tc", "another XDP program"),
        (nic("lo", loopback=True), "", "tc", "loopback"),
    ],
)
def test_auto_takes_xdp_where_it_harms_nobody(interface: Interface, driver: str, mechanism: str, word: str) -> None:
    hook = choose_hook(interface, "auto", lambda _: driver)
    assert hook.mechanism == mechanism and word in hook.because


def test_what_is_asked_for_is_tried_but_a_foreign_program_stays() -> None:
    assert choose_hook(nic("eth0", kind="veth"), "xdp").mechanism == "xdp"
    assert choose_hook(nic("eth0", kind="veth", xdp=True), "xdp").mechanism == "tc"
    assert choose_hook(nic("eth0"), "tc", lambda _: "mlx5_core").mechanism == "tc"
