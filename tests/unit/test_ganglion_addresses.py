"""Which of the host's addresses are announced."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest

from omninervous.ganglion.addresses import MAX_CANDIDATES, underlay
from omninervous.ganglion.netlink import OVERLAY_ALIAS, Interface


def nic(name: str, *addresses: str, up: bool = True, loopback: bool = False, **more: object) -> Interface:
    facts = {"kind": "", "alias": "", "bridge_port": False, "default_route": False, **more}
    return Interface(
        index=1,
        name=name,
        up=up,
        loopback=loopback,
        addresses=tuple(map(ip_interface, addresses)),
        **facts,  # type: ignore[arg-type]
    )


def hosts(*present: Interface, iface: str | None = None, ipv6: bool = True) -> list[str]:
    return [each.host for each in underlay(present, 51820, device="omni0", iface=iface, ipv6=ipv6).candidates]


def test_both_families_are_announced_with_our_port() -> None:
    found = underlay([nic("eth0", "192.0.2.1/24", "2001:db8::1/64")], 7, device="omni0")
    assert [str(each) for each in found.networks] == ["192.0.2.0/24", "2001:db8::/64"]
    assert [str(each) for each in found.candidates] == ["192.0.2.1:7", "[2001:db8::1]:7"]


@pytest.mark.parametrize(
    "interface",
    [
        nic("lo", "127.0.0.1/8", "::1/128", "192.0.2.9/32", loopback=True),
        nic("eth1", "169.254.3.4/16", "fe80::1/64"),
        nic("eth1", "192.0.2.1/24", up=False),
        nic("eth1", "192.0.2.1/24", carrier=False),
        nic("wg0", "192.0.2.1/24", kind="wireguard", tunnel=True),
        nic("omni0", "10.200.0.1/13"),
        nic("omni7", "10.200.0.1/13"),
        nic("robot-net", "10.200.0.1/13", alias=OVERLAY_ALIAS),
        nic("docker0", "172.17.0.1/16", kind="bridge"),
        nic("br-0123456789ab", "172.18.0.1/16", kind="bridge"),
        nic("virbr0", "192.168.122.1/24", kind="bridge"),
        nic("cni-podman0", "10.88.0.1/16", kind="bridge"),
        nic("port1", "192.0.2.1/24", kind="veth", bridge_port=True),
    ],
    ids=lambda each: each.name,
)
def test_what_reaches_nobody_is_left_out(interface: Interface) -> None:
    assert hosts(interface) == []


@pytest.mark.parametrize(
    "interface", [nic("veth7", "192.0.2.1/24", kind="veth"), nic("br-lan", "192.0.2.1/24", kind="bridge")]
)
def test_ordinary_networks_of_virtual_kinds_stay(interface: Interface) -> None:
    assert hosts(interface) == ["192.0.2.1"]


def test_the_default_routes_nic_comes_first_and_the_list_is_bounded() -> None:
    many = [nic(f"eth{n}", f"192.0.2.{n}/24") for n in range(1, 20)]
    found = hosts(*many, nic("wan", "198.51.100.1/24", default_route=True))
    assert found[0] == "198.51.100.1" and len(found) == MAX_CANDIDATES


def test_another_gateway_is_another_way_out() -> None:
    def ways(gateway: str) -> object:
        return underlay([nic("eth0", "192.0.2.9/24", default_route=True, gateways=(gateway,))], 7, device="omni0")

    assert ways("192.0.2.1") == ways("192.0.2.1") != ways("192.0.2.2")


def test_a_chosen_nic_is_the_only_one() -> None:
    assert hosts(nic("eth0", "192.0.2.1/24"), nic("eth1", "192.0.2.2/24"), iface="eth1") == ["192.0.2.2"]


def test_without_an_ipv6_socket_no_ipv6_is_announced() -> None:
    assert hosts(nic("eth0", "192.0.2.1/24", "2001:db8::1/64"), ipv6=False) == ["192.0.2.1"]
