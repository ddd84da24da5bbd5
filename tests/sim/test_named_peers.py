"""The user names other peers while the edge runs (`omni reload`)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from omninervous.core.dataplane import PeerId
from omninervous.core.events import NodeConfig, PeerConfig, PeerDown
from omninervous.core.identity import synthetic_mac
from tests.sim.simnet import Edge, Nat, World, arp_request, raw_frame, seeded_identity
from tests.sim.test_cluster import Clusternet

HUB_HOST = "192.0.2.1"
STOCK = seeded_identity("stock")


def named(edge: Edge, **more: object) -> PeerConfig:
    """The entry for an edge that is on a public address."""
    identity = edge.identity
    return replace(PeerConfig(identity.x25519_public, identity.public, edge.address), **more)  # type: ignore[arg-type]


def sessions(edge: Edge, other: Edge) -> set[bytes]:
    found = edge.peer(other)
    return set() if found is None else {each.session_id for each in found.sessions}


def fed(edge: Edge) -> set[PeerId]:
    """Whom the engine knows."""
    return {each.peer for each in edge.snapshot().peers if each.mac is not None}


class Star:
    """A hub that names nobody yet, and two edges that name it."""

    def __init__(self) -> None:
        self.world = World(1)
        self.hub = self._edge("hub", HUB_HOST).start()
        self.one, self.two = (self._edge(name, f"192.0.2.{place}") for place, name in ((2, "one"), (3, "two")))
        for each in (self.one, self.two):
            each.start()
            each.do(lambda node, now: node.set_peers(now, [named(self.hub)]))

    def _edge(self, name: str, host: str) -> Edge:
        identity = seeded_identity(name)
        return self.world.edge(name, identity, NodeConfig(boot_id=identity.public[:16]), host)

    def name(self, *peers: PeerConfig) -> None:
        self.hub.do(lambda node, now: node.set_peers(now, peers))

    def connected(self, other: Edge) -> bool:
        return self.world.run(30.0, until=lambda: self.hub.connected(other) and other.connected(self.hub))

    def carries(self, other: Edge, text: str) -> bool:
        other.send_to(self.hub, text)
        self.hub.send_to(other, text)
        self.world.run(1.0)
        return self.hub.heard(other, text) and other.heard(self.hub, text)


def test_peers_come_and_go_while_the_others_keep_their_sessions() -> None:
    star = Star()
    star.world.run(5.0)
    assert not star.hub.connected(star.one), "it is named by nobody"
    star.name(named(star.one))
    assert star.connected(star.one) and star.carries(star.one, "first")
    before = sessions(star.hub, star.one)
    star.name(named(star.one), named(star.two))
    assert star.connected(star.two) and star.carries(star.two, "second") and star.carries(star.one, "still")
    assert sessions(star.hub, star.one) & before
    star.name(named(star.two))
    star.world.run(5.0)
    assert star.hub.peer(star.one) is None and not star.one.connected(star.hub), "it was told, and is not let in again"
    assert fed(star.hub) == {star.two.identity.x25519_public}
    star.hub.transmit(raw_frame(star.hub, star.one, "late"))
    star.world.run(5.0)
    assert not star.one.heard(star.hub, "late") and star.carries(star.two, "third")
    star.name(named(star.one), named(star.two))
    assert star.connected(star.one) and star.carries(star.one, "again")


def test_a_changed_entry_is_met_anew_and_the_same_list_changes_nothing() -> None:
    star = Star()
    star.name(named(star.one), named(star.two))
    assert star.connected(star.one) and star.connected(star.two)
    before = sessions(star.hub, star.one), sessions(star.hub, star.two)
    star.name(named(star.two), named(star.one))
    star.world.run(1.0)
    assert (sessions(star.hub, star.one), sessions(star.hub, star.two)) == before
    psk = b"k" * 32
    star.name(named(star.one, psk=psk), named(star.two))
    star.world.run(20.0)
    assert not star.hub.connected(star.one), "the other side has no such key"
    assert {problem.code for problem in star.hub.snapshot().problems} == {"psk_mismatch"}
    star.one.do(lambda node, now: node.set_peers(now, [named(star.hub, psk=psk)]))
    assert star.connected(star.one) and star.carries(star.one, "with the key")
    assert not star.hub.snapshot().problems and sessions(star.hub, star.two) & before[1]
    star.name(named(star.one), named(star.two))
    star.world.run(20.0)
    star.name(named(star.two))
    assert not star.hub.snapshot().problems, "it went with the peer"


def test_a_removed_stock_peer_loses_its_addresses() -> None:
    star = Star()
    star.name(PeerConfig(STOCK.x25519_public, None, None, allowed_ips=(IPv4Network("10.9.0.0/24"),)))
    target = IPv4Address("10.9.0.1")
    star.hub.transmit(arp_request(star.hub, target))
    assert any(synthetic_mac(STOCK.x25519_public) in frame for frame in star.hub.frames)
    star.hub.frames.clear()
    star.name()
    star.hub.transmit(arp_request(star.hub, target))
    assert not star.hub.frames and not star.hub.snapshot().peers


def test_a_member_may_be_named_and_is_a_member_again_afterwards() -> None:
    net = Clusternet()
    open_nat = [Nat(f"203.0.113.{number}") for number in (1, 2)]
    a, b = (net.edge(name, nat=nat) for name, nat in zip("ab", open_nat, strict=True))
    assert net.world.run(30.0, until=net.all_connected), net.world.context()
    for edge, other in ((a, b), (b, a)):
        found = edge.peer(other)
        assert found is not None and found.endpoint is not None
        entry = PeerConfig(other.identity.x25519_public, other.identity.public, found.endpoint)
        edge.do(lambda node, now, entry=entry: node.set_peers(now, [entry]))  # type: ignore[misc]
    assert net.world.run(60.0, until=net.all_connected), net.world.context()
    assert kinds(a, b) == ["pair", "pair"]
    for edge in (a, b):
        edge.do(lambda node, now: node.set_peers(now, []))
    assert net.world.run(60.0, until=net.all_connected), net.world.context()
    assert kinds(a, b) == ["member", "member"]
    downs = [each.reason for edge in (a, b) for each in edge.seen(PeerDown)]
    assert set(downs) == {"closed"}


def kinds(a: Edge, b: Edge) -> list[str]:
    found = (a.peer(b), b.peer(a))
    return [each.kind for each in found if each is not None]
