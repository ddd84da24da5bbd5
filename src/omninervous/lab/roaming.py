"""A machine that moves: from one NAT to another and back, while the other side stays behind its own::

nucleus      nat-home      nat-away        nat-b
                |             |              |
              wlan0         wwan0           eth0
                +--- roamer --+             still
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from omninervous.lab.daemons import Daemon
from omninervous.lab.namespaces import Lab
from omninervous.lab.nat import NatPolicy
from omninervous.lab.outage import UdpStream
from omninervous.lab.topology import Host, Internet, NatBox

__all__ = ["Roaming"]

_SECRET = "only for this laboratory"
DARK = 0.5
"""Seconds without any uplink: association and DHCP."""
ROAMER_VIP, STILL_VIP = "10.200.8.1", "10.200.8.2"


@dataclass(frozen=True, slots=True)
class _Uplink:
    interface: str
    address: str
    gateway: str


class Roaming:
    """The network of the picture with its daemons; they have met when it is made."""

    def __init__(self, lab: Lab) -> None:
        internet = Internet(lab)
        self.nucleus = internet.public_host("nucleus")
        self.home, self.away, self.nat_b = (internet.nat(f"nat-{name}") for name in ("home", "away", "b"))
        still = internet.edge("still", self.nat_b)
        self.roamer = lab.namespace("roamer")
        self._uplinks = [
            self._plug(internet, interface, nat) for interface, nat in (("wlan0", self.home), ("wwan0", self.away))
        ]
        for nat, client in ((self.home, None), (self.away, None), (self.nat_b, still.address)):
            nat.configure(NatPolicy(nat.kind, client))
        self._at = 0
        self.move(0)
        self.still = still.namespace
        self.daemons = self._start(lab, still)

    def _plug(self, internet: Internet, interface: str, nat: NatBox) -> _Uplink:
        address = internet.plug(self.roamer, interface, nat)
        return _Uplink(interface, f"{address}/{nat.lan.prefixlen}", str(nat.gateway))

    def _start(self, lab: Lab, still: Host) -> list[Daemon]:
        nucleus = Daemon(lab, self.nucleus.namespace, "nucleus").launch("--mode", "nucleus", "--port", "51820")
        nucleus.wait_ready()
        daemons = []
        for where, name, vip in ((self.roamer, "roamer", ROAMER_VIP), (still.namespace, "still", STILL_VIP)):
            edge = Daemon(lab, where, name)
            arguments = ("--nucleus", f"{self.nucleus.address}:51820", "--cluster", "roaming", "--vip", vip)
            edge.launch(*arguments, environment={"OMNI_SECRET": _SECRET}).wait_ready()
            daemons.append(edge)
        for edge in daemons:
            edge.wait_for_peer()
        return daemons

    def move(self, to: int | None = None) -> float:
        """Leave the present uplink and take the other one (or a given one); the time just before it has its address."""
        old, self._at = self._uplinks[self._at], (1 - self._at if to is None else to)
        new = self._uplinks[self._at]
        self.roamer.ip_batch(
            f"address flush dev {old.interface}",
            f"link set {old.interface} down",
            f"link set {new.interface} up",
        )
        time.sleep(DARK)
        began = time.monotonic()
        self.roamer.ip_batch(
            f"address add {new.address} dev {new.interface}", f"route replace default via {new.gateway}"
        )
        return began

    def streams(self) -> tuple[UdpStream, UdpStream]:
        """From the roamer, and to it, every 5 ms; not started."""
        roamer, still = (self.roamer, ROAMER_VIP), (self.still, STILL_VIP)
        return UdpStream(roamer, still), UdpStream(still, roamer)
