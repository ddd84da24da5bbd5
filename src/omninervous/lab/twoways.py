"""Two machines with two ways to one another: IPv6 through a stateful firewall, IPv4 through two NATs.

The picture is `topology.two_nats` with IPv6. One way is cut at edge B's router, for UDP and for the Nucleus's messages
alike; no interface of an edge notices.
"""

from __future__ import annotations

from omninervous.lab.cut import cut, mend
from omninervous.lab.daemons import PAIR_VIPS, start_cluster
from omninervous.lab.namespaces import Lab
from omninervous.lab.outage import UdpStream
from omninervous.lab.process import poll_until
from omninervous.lab.topology import two_nats

__all__ = ["TwoWays"]

_PROTOCOLS = {"ipv6": "ip6", "nat": "ip"}
"""Kinds of paths (`core/pathkind.py`) -> nftables' `meta protocol`."""


class TwoWays:
    """The network of the picture with its daemons, which have met when it is made."""

    def __init__(self, lab: Lab) -> None:
        net = two_nats(lab, ipv6=True)
        _, *self.daemons = start_cluster(lab, net)
        self.a, self.b = net.edge_a.namespace, net.edge_b.namespace
        self._router = net.nat_b.namespace
        for edge in self.daemons:
            edge.wait_for_peer()

    @property
    def kinds(self) -> tuple[str, ...]:
        """How each edge reaches the other; empty texts while it does not."""
        return tuple(_kind(edge.peek("peers").get("peers", [])) for edge in self.daemons)

    def wait_for(self, kind: str, seconds: float) -> bool:
        """Whether both edges send over paths of that kind in time."""
        return bool(poll_until(lambda: set(self.kinds) == {kind}, seconds, 0.2))

    def cut(self, kind: str) -> float:
        """Paths of that kind are dead from now on; when that was."""
        return cut(self._router, "wan0", f"meta protocol {_PROTOCOLS[kind]} meta l4proto udp")

    def mend(self) -> None:
        """Undo `cut`."""
        mend(self._router)

    def streams(self) -> tuple[UdpStream, UdpStream]:
        """From A to B, and back, every 5 ms; not started."""
        a, b = (self.a, str(PAIR_VIPS[0])), (self.b, str(PAIR_VIPS[1]))
        return UdpStream(a, b), UdpStream(b, a)


def _kind(peers: list[dict[str, dict[str, str] | None]]) -> str:
    path = peers[0]["path"] if peers else None
    return "" if path is None else path["kind"]
