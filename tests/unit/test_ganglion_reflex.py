"""The kernel's lane as a part of the machine: what is attached where, and what happens when something is refused."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from omninervous.errors import SystemFailure
from omninervous.ganglion.netlink import Interface
from omninervous.ganglion.reflex import Reflex, Wish
from tests.unit.test_ganglion_underlay import nic


class Kernel:
    """Fulfils what `Reflex` asks of `Programs`; refuses what it is told to."""

    def __init__(self, refused: dict[tuple[int, str], int] | None = None) -> None:
        self.refused = refused or {}
        self.attached: dict[int, str] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.calls.append(name)

    def attach_underlay(self, ifindex: int, mechanism: str) -> None:
        number = self.refused.get((ifindex, mechanism))
        if number is not None:
            raise OSError(number, "a reason")
        self.calls.append("attach_underlay")
        self.attached[ifindex] = mechanism

    def detach_underlay(self, ifindex: int) -> None:
        self.attached.pop(ifindex, None)

    def programs(self) -> list[tuple[str, str, int]]:
        return [("tc_synapse", "ingress", index) for index in self.attached]

    def counters(self) -> list[tuple[str, int]]:
        return [("rx_packets", 4), ("tx_packets", 0)]


LO = nic("lo", index=1, loopback=True)
ETH0 = nic("eth0", index=2, kind="veth", default_route=True)
ETH1 = nic("eth1", index=3, kind="veth")


def lane(kernel: Kernel, ebpf: str = "auto", present: tuple[Interface, ...] = (LO, ETH0)) -> Reflex:
    made = Reflex(Wish(ebpf, "omni0", None), kernel, "")
    made.begin(present)
    return made


def test_receiving_begins_before_sending() -> None:
    kernel = Kernel()
    running = lane(kernel)
    assert kernel.calls.index("attach_underlay") < kernel.calls.index("attach_overlay")
    assert kernel.attached == {1: "tc", 2: "tc"} and running.lanes == (8,)
    status = running.status()
    assert status["mechanism"] == "tc" and "veth" in status["because"]
    assert status["programs"][1] == {"name": "tc_synapse", "hook": "ingress", "interface": "eth0"}
    assert status["counters"] == {"rx_packets": 4}


def test_interfaces_that_come_and_go_are_followed() -> None:
    kernel = Kernel()
    running = lane(kernel)
    running.follow((LO, ETH0, ETH1))
    assert kernel.attached == {1: "tc", 2: "tc", 3: "tc"}
    running.follow((LO, ETH1))
    assert kernel.attached == {1: "tc", 3: "tc"}
    again = nic("eth0", index=4, kind="veth")
    running.follow((LO, ETH1, again))
    assert kernel.attached == {1: "tc", 3: "tc", 4: "tc"}


def test_the_lane_is_not_offered_while_datagrams_may_come_past_it() -> None:
    running = lane(Kernel())
    modem = nic("wwan0", index=5, ethernet=False, default_route=True)
    running.follow((LO, ETH0, modem))
    assert running.lanes == () and "wwan0 has no Ethernet header" in running.status()["because"]
    assert running.trouble == "", "that is no fault"
    running.follow((LO, ETH0))
    assert list(running.lanes) == [8] and "veth" in running.status()["because"]


def test_what_the_kernel_refuses_later_does_not_end_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    running = lane(kernel)

    def full() -> None:
        raise OSError(errno.E2BIG, "the map is full")

    monkeypatch.setattr(kernel, "tick", full, raising=False)
    running.tick()
    running.follow((LO, ETH0, ETH1))
    assert kernel.attached == {1: "tc", 2: "tc", 3: "tc"} and "the map is full" in running.trouble
    monkeypatch.undo()
    running.tick()
    assert running.trouble == ""


def test_a_driver_without_xdp_gets_tc_with_its_reason() -> None:
    kernel = Kernel({(2, "xdp"): errno.EOPNOTSUPP})
    with pytest.raises(SystemFailure, match=r"no interface takes an XDP program .*a reason"):
        lane(kernel, "xdp")
    kernel = Kernel({(2, "xdp"): errno.EBUSY})
    running = lane(kernel, "xdp", (LO, ETH0, ETH1))
    assert kernel.attached == {1: "tc", 2: "tc", 3: "xdp"}
    assert running.status()["mechanism"] == "xdp"


def test_an_interface_that_takes_no_program_is_a_reason_at_first_and_a_problem_later() -> None:
    refused = {(3, "tc"): errno.EPERM}
    with pytest.raises(SystemFailure, match="eth1 takes no program"):
        lane(Kernel(refused), present=(LO, ETH0, ETH1))
    running = lane(Kernel(refused))
    running.follow((LO, ETH0, ETH1))
    assert "eth1" in running.trouble and running.status()["mechanism"] == "tc"
    running.follow((LO, ETH0))
    assert running.trouble == ""


def test_an_interface_that_goes_meanwhile_is_no_trouble() -> None:
    assert lane(Kernel({(3, "tc"): errno.ENODEV}), present=(LO, ETH0, ETH1)).trouble == ""


def test_without_a_lane_nothing_happens_and_the_status_says_why() -> None:
    off = Reflex(Wish("auto", "omni0", None), None, "this kernel is older than 6.6")
    off.follow((ETH0,))
    off.tick()
    assert off.lanes == () and off.status()["because"] == "this kernel is older than 6.6"
    assert off.status()["mechanism"] == "off" and off.status()["minimum_kernel"] == "6.6"
