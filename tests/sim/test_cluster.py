"""A Nucleus and edges behind NATs: discovery, addresses, and everything that can go wrong with them."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest

from omninervous.core.events import (
    IdentityCloned,
    NodeConfig,
    NucleusConfig,
    NucleusDown,
    NucleusKeyMismatch,
    NucleusPinned,
    NucleusUp,
    PeerDown,
    PeerUp,
    PersistMembers,
    PersistSerial,
    SecretMismatchHint,
    VipAssigned,
    VipLost,
    VipRefused,
)
from omninervous.core.identity import Identity
from omninervous.core.memory_registry import MemoryRegistry
from omninervous.core.neighbours import SAVE_AFTER
from omninervous.core.noise import Initiator
from omninervous.core.secret import ClusterKeys, derive_cluster
from omninervous.core.tai64n import Tai64nClock
from omninervous.core.vip import derive_vip, parse_vip
from omninervous.wire.address import Endpoint
from omninervous.wire.frame import ETHERTYPE_IPV6, build_arp_reply, build_ethernet, eui64_link_local
from omninervous.wire.neighbour import NEIGHBOUR_SOLICITATION, build_neighbour_advertisement
from tests.datapaths import icmpv6, neighbour_message
from tests.sim.simnet import ROUGH, Edge, Nat, Nucleus, World, arp_request, seeded_identity

NUCLEUS = seeded_identity("nucleus")
NUCLEUS_HOST = "198.51.100.1"
NAME = "nucleus.example:51820"


@lru_cache
def cluster(secret: str = "a secret of enough characters") -> ClusterKeys:
    return derive_cluster("testnet", secret)


def member_config(name: str, identity: Identity, boot: int = 0, **more: object) -> NodeConfig:
    """Of a member of the one cluster here."""
    boot_id = identity.public[:15] + bytes([boot])
    base = NodeConfig(boot_id=boot_id, cluster=cluster(), nuclei=(NucleusConfig(NAME),), name=name)
    return replace(base, **more)  # type: ignore[arg-type]


class Clusternet:
    """A world with one Nucleus; edges are made behind NATs of their own, one second apart if wished."""

    def __init__(self, seed: int = 1, world: World | None = None) -> None:
        self.world = world or World(seed)
        self.name = NAME
        self.nucleus = self.world.nucleus("nucleus", NUCLEUS, NUCLEUS_HOST)
        self.edges: list[Edge] = []

    def edge(
        self, name: str, *, identity: Identity | None = None, nat: Nat | None = None, boot: int = 0, **more: object
    ) -> Edge:
        number = len(self.edges) + 1
        identity = identity or seeded_identity(name)
        router = nat or Nat(f"203.0.113.{number}")
        edge = self.world.edge(
            name, identity, member_config(name, identity, boot, **more), f"192.168.0.{number}", router
        )
        self.edges.append(edge)
        return edge.start([(NAME, self.nucleus.address)])

    def public(self, name: str, *hosts: str) -> Edge:
        """An edge on one or several public addresses; it sends from the first of them."""
        identity = seeded_identity(name)
        edge = self.world.edge(name, identity, member_config(name, identity), hosts[0])
        edge.more = tuple(Endpoint(host, edge.address.port) for host in hosts[1:])
        self.edges.append(edge)
        return edge.start([(NAME, self.nucleus.address)], (edge.address, *edge.more))

    def run(self, seconds: float) -> None:
        self.world.run(seconds)

    def all_connected(self, edges: list[Edge] | None = None) -> bool:
        chosen = self.edges if edges is None else edges
        return all(a.connected(b) for a in chosen for b in chosen if a is not b)

    def restart_nucleus(self) -> Nucleus:
        self.world.detach(self.nucleus)
        self.nucleus = self.world.nucleus("nucleus again", NUCLEUS, NUCLEUS_HOST)
        return self.nucleus

    @property
    def counters(self) -> dict[str, int]:
        return dict(self.nucleus.rendezvous.snapshot().counters)


def colliding_identities() -> tuple[Identity, Identity]:
    """Two identities whose first derived address is the same (there are 2^19: some 900 identities are enough)."""
    seen: dict[IPv4Address, Identity] = {}
    for number in range(20_000):
        identity = seeded_identity(f"collision {number}")
        address = derive_vip(identity.public, 0)
        if address in seen:
            return seen[address], identity
        seen[address] = identity
    raise AssertionError("no collision")


# ---------------------------------------------------------------- reaching one another


def test_edges_behind_port_restricted_nats_punch_through() -> None:
    net = Clusternet()
    for name in ("a", "b", "c"):
        net.edge(name)
    assert net.world.run(5.0, until=net.all_connected), net.world.context()
    net.run(0.5)
    a, b, _ = net.edges
    to_nucleus = net.world.datagrams
    a.send_to(b, "direct")
    net.run(0.1)
    assert b.heard(a, "direct") and net.world.datagrams == to_nucleus + 1, "no data passes the Nucleus"
    status = a.peer(b)
    assert status is not None and status.name == "b" and status.vip == b.vip and status.endpoint is not None
    assert status.endpoint.host == "203.0.113.2"
    assert [event.identity for event in a.seen(NucleusPinned)] == [NUCLEUS.public]


def test_edges_behind_one_nat_use_their_own_network() -> None:
    net = Clusternet()
    shared = Nat("203.0.113.50")
    a, b = net.edge("a", nat=shared), net.edge("b", nat=shared)
    assert net.world.run(10.0, until=net.all_connected), net.world.context()
    status = a.peer(b)
    assert status is not None and status.endpoint == b.address


def test_a_cluster_connects_in_rough_weather(seed: int) -> None:
    net = Clusternet(world=World(seed, ROUGH))
    for number in range(5):
        net.edge(f"e{number}")
    assert net.world.run(60.0, until=net.all_connected), net.world.context()


def test_an_edge_that_stays_unreachable_is_asked_to_call_back() -> None:
    net = Clusternet()
    a = net.edge("a", eager=False)
    symmetric = Nat("203.0.113.77", symmetric=True)
    b = net.edge("b", eager=False, nat=symmetric)
    open_door = Nat("203.0.113.78", filtering="none")
    c = net.edge("c", eager=False, nat=open_door)
    net.run(3.0)
    b.send_to(c, "to the open one")
    assert net.world.run(10.0, until=lambda: b.connected(c)), net.world.context()
    c.send_to(b, "back")
    net.run(1.0)
    assert b.heard(c, "back") and not a.connected(b)


# ---------------------------------------------------------------- discovery


def test_arp_is_answered_here_and_connects() -> None:
    net = Clusternet()
    a, b = net.edge("a", eager=False), net.edge("b", eager=False)
    net.run(35.0)
    assert a.vip is not None and b.vip is not None and not a.connected(b)
    before = net.world.bytes
    request = arp_request(a, b.vip)
    a.transmit(request)
    assert a.frames == [build_arp_reply(request, b.identity.mac)], "known from the view: no round trip"
    a.send_to(b, "first")
    net.run(1.0)
    assert b.heard(a, "first") and a.connected(b) and net.world.bytes > before


def test_neighbour_solicitations_are_answered_too() -> None:
    net = Clusternet()
    a, b = net.edge("a", eager=False), net.edge("b", eager=False)
    net.run(35.0)
    own = eui64_link_local(a.identity.mac)
    for target in (b.identity.ula, eui64_link_local(b.identity.mac)):
        group = IPv6Address(b"\xff\x02" + bytes(9) + b"\x01\xff" + target.packed[13:])
        body = neighbour_message(NEIGHBOUR_SOLICITATION, target, a.identity.mac)
        request = build_ethernet(
            b"\x33\x33" + group.packed[12:], a.identity.mac, ETHERTYPE_IPV6, icmpv6(own, group, body)
        )
        a.transmit(request)
        assert a.frames[-1] == build_neighbour_advertisement(request, b.identity.mac)


def test_unknown_addresses_stay_unanswered_and_are_asked_once() -> None:
    net = Clusternet()
    a = net.edge("a")
    net.run(3.0)
    for _ in range(50):
        a.transmit(arp_request(a, IPv4Address("10.207.1.2")))
    a.transmit(arp_request(a, IPv4Address("172.16.0.1")))
    net.run(1.0)
    assert not a.frames and net.counters["rx_query_peer"] == 1
    assert a.snapshot().drops["unresolved"] > 0


def test_an_unheard_of_member_is_let_in_once_the_nucleus_vouches_for_it() -> None:
    net = Clusternet()
    a = net.edge("a", eager=False)
    net.run(1.0)
    b = net.edge("b", eager=False)
    net.run(1.0)
    assert a.peer(b) is None, "a has not had a heartbeat since"
    assert a.vip is not None
    b.transmit(arp_request(b, a.vip))
    assert net.world.run(1.0, until=lambda: a.connected(b) and b.connected(a)), net.world.context()


def test_a_stranger_is_held_asked_about_and_never_answered() -> None:
    net = Clusternet()
    a = net.edge("a", nat=Nat("203.0.113.1", filtering="none"))
    net.run(1.0)
    assert a.nat is not None
    public = a.nat.outbound(net.world.boot, a.address, net.nucleus.address)
    eve = seeded_identity("eve")
    stamp = Tai64nClock(None).next(net.world.now.wall)
    initiation = Initiator.create(
        eve.x25519_private, a.identity.x25519_public, bytes(32), stamp, 1, net.world.entropy("eve")
    )
    stranger = net.world.spoof(Endpoint("198.51.100.66", 9))
    sent = net.world.datagrams
    net.world.inject(stranger, public, initiation.message)
    net.run(0.5)
    assert net.world.datagrams == sent + 3, "the question and its answer"
    assert net.counters["rx_query_peer"] == 1 and a.snapshot().drops == {"unknown_initiator": 1}


# ---------------------------------------------------------------- addresses


def test_derived_addresses_that_collide_are_settled() -> None:
    net = Clusternet()
    one, two = colliding_identities()
    a, b = net.edge("a", identity=one), net.edge("b", identity=two)
    assert net.world.run(5.0, until=net.all_connected), net.world.context()
    assert a.vip is not None and b.vip is not None and a.vip != b.vip
    assert {event.derivation for edge in (a, b) for event in edge.seen(VipAssigned)} == {0, 1}
    assert not a.seen(VipLost) and not b.seen(VipLost), "an edge asks before it claims"


def test_an_explicit_claim_takes_a_derived_address() -> None:
    net = Clusternet()
    derived = net.edge("derived")
    net.run(3.0)
    address = derived.vip
    assert address is not None
    explicit = net.edge("explicit", claim=parse_vip(str(address)))
    assert net.world.run(10.0, until=lambda: explicit.vip == address and derived.vip not in (None, address))
    (lost,) = derived.seen(VipLost)
    assert lost.holder == explicit.identity.public
    assert net.world.run(40.0, until=lambda: explicit.peer(derived).vip == derived.vip), net.world.context()  # type: ignore[union-attr]


def test_the_holder_of_an_explicit_address_is_named_and_inherited_from() -> None:
    net = Clusternet()
    claim = parse_vip("10.200.0.1")
    first = net.edge("first", claim=claim)
    net.run(3.0)
    second = net.edge("second", claim=claim)
    net.run(3.0)
    (refused,) = second.seen(VipRefused)
    assert refused.address == claim.address and refused.holder == first.identity.public
    assert second.vip is None and first.vip == claim.address and not first.seen(VipLost)
    first.stop()
    assert net.world.run(40.0, until=lambda: second.vip == claim.address), net.world.context()


def test_a_cloned_identity_stays_out_until_the_first_is_gone() -> None:
    net = Clusternet()
    first, other = net.edge("a"), net.edge("b")
    net.run(3.0)
    clone = net.edge("clone", identity=first.identity, boot=7)
    net.run(15.0)
    assert [event.own for event in clone.seen(IdentityCloned)] == [True]
    assert clone.vip is None and not clone.seen(PeerUp)
    assert first.vip is not None and first.connected(other) and not first.seen(VipLost)
    first.crash()
    assert net.world.run(150.0, until=lambda: clone.vip is not None and clone.connected(other)), net.world.context()


# ---------------------------------------------------------------- coming and going


def test_leaving_is_told_at_once() -> None:
    net = Clusternet()
    a, b, c = (net.edge(name) for name in "abc")
    assert net.world.run(5.0, until=net.all_connected)
    net.run(1.0)
    b.stop()
    net.run(1.0)
    assert [down.reason for down in a.seen(PeerDown)] == ["closed"]
    net.run(35.0)
    assert a.peer(b) is None and a.snapshot().flood == (c.identity.x25519_public,)


def test_a_crash_is_noticed_after_ninety_seconds() -> None:
    net = Clusternet()
    a, b = net.edge("a"), net.edge("b")
    assert net.world.run(5.0, until=net.all_connected)
    b.crash()
    net.run(89.0)
    assert a.snapshot().flood == (b.identity.x25519_public,)
    net.run(125.0)
    assert a.snapshot().flood == () and a.peer(b) is None, "forgotten once its session is over"


def test_a_restarted_edge_comes_back() -> None:
    net = Clusternet()
    a, b = net.edge("a"), net.edge("b")
    assert net.world.run(5.0, until=net.all_connected)
    b.crash()
    net.run(2.0)
    again = net.edge("b", identity=b.identity, boot=1, nat=Nat("203.0.113.99"))
    assert net.world.run(20.0, until=lambda: again.connected(a) and a.connected(again)), net.world.context()
    assert again.vip == b.config.claim or again.vip is not None
    a.send_to(again, "welcome back")
    assert net.world.run(3.0, until=lambda: again.heard(a, "welcome back")), net.world.context()


def test_a_restarted_nucleus_gets_its_edges_back_without_a_storm() -> None:
    net = Clusternet()
    for number in range(8):
        net.edge(f"e{number}")
    assert net.world.run(10.0, until=net.all_connected)
    net.run(40.0)
    nucleus = net.restart_nucleus()
    arrivals: list[float] = []
    while len(arrivals) < 8 and net.world.boot < 1200:
        edges = nucleus.rendezvous.snapshot().registry.edges
        arrivals += [net.world.boot] * (edges - len(arrivals))
        net.run(0.25)
    assert len(arrivals) == 8 and arrivals[-1] - arrivals[0] > 5.0
    net.run(60.0)
    assert net.all_connected() and not any(edge.seen(PeerDown) for edge in net.edges)
    assert all(edge.snapshot().nuclei[0].registered for edge in net.edges)


def test_multicast_goes_on_while_a_restarted_nucleus_gathers_its_edges() -> None:
    net = Clusternet()
    edges = [net.edge(f"e{number}") for number in range(6)]
    net.run(40.0)
    assert net.all_connected() and all(len(edge.snapshot().flood) == 5 for edge in edges)
    net.restart_nucleus()
    for _ in range(120):
        net.run(0.5)
        assert all(len(edge.snapshot().flood) == 5 for edge in edges), net.world.context()
    # Who is gone with the old Nucleus is not flooded to for ever.
    edges[0].crash()
    net.restart_nucleus()
    net.run(150.0)
    assert all(len(edge.snapshot().flood) == 4 for edge in edges[1:])


def test_who_is_unknown_to_its_nucleus_registers_again_even_if_chance_gives_no_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = Clusternet()
    a = net.edge("a")
    net.run(10.0)
    monkeypatch.setattr(a.node._ctx, "jitter", lambda _: 0.0)
    registry = net.nucleus.rendezvous._registry
    assert isinstance(registry, MemoryRegistry)
    (home,) = registry._clusters
    assert registry.leave(net.world.boot, home, a.identity.x25519_public)
    net.run(60.0)
    assert a.snapshot().nuclei[0].registered


def test_after_suspend_an_edge_is_registered_again_at_once() -> None:
    net = Clusternet()
    a = net.edge("a")
    net.run(20.0)
    a.do(lambda node, now: node.reset_sessions(now, "suspend"))
    assert not a.snapshot().nuclei[0].registered
    assert net.world.run(0.5, until=lambda: a.snapshot().nuclei[0].registered), net.world.context()


def test_a_calendar_that_is_wrong_for_a_while_costs_no_member() -> None:
    net = Clusternet()
    a, b = net.edge("a"), net.edge("b")
    net.run(30.0)
    net.world.detach(net.nucleus)
    a.wall_offset = 9 * 86400.0
    net.run(200.0)
    a.wall_offset = 0.0
    net.run(200.0)
    assert a.connected(b) and a.peer(b) is not None
    a.wall_offset = 9 * 86400.0
    net.run(3800.0)
    assert a.peer(b) is None, "a calendar that is right for an hour is believed"


def test_a_path_does_not_lead_through_the_overlay() -> None:
    net = Clusternet()
    p = net.public("p", "192.0.2.9")
    a = net.edge("a")
    net.run(30.0)
    inside = [Endpoint(str(p.vip), 51820), Endpoint("10.203.0.9", 51820), Endpoint(str(p.identity.ula), 51820)]
    p.do(lambda node, now: node.set_candidates(now, (*inside, p.address)))
    a.node.call(a.now, p.identity.x25519_public)
    net.run(60.0)
    tried = {each.endpoint for each in a.node.trials(p.identity.x25519_public)}
    assert p.address in tried and not tried & set(inside)
    drops = a.snapshot().drops.get("from_overlay", 0)
    a.receive(a.now, inside[0], b"\x01" + bytes(147))
    net.world.settle(a)
    assert a.snapshot().drops["from_overlay"] == drops + 1
    # Where a network of the underlay lies in the overlay's, the kernel prefers it.
    network = IPv4Network("10.203.0.0/24")
    a.do(lambda node, now: node.set_candidates(now, [a.address], [network]))
    assert not a.node._fabric._own.inside(inside[1]) and a.node._fabric._own.inside(inside[0])


def test_an_unanswered_question_finds_out_that_the_nucleus_restarted() -> None:
    net = Clusternet()
    a, _ = net.edge("a"), net.edge("b")
    assert net.world.run(5.0, until=net.all_connected)
    net.run(60.0)
    assert a.snapshot().nuclei[0].registered
    nucleus = net.restart_nucleus()
    # A heartbeat and its repeats alone take 40 s to notice.
    a.transmit(arp_request(a, IPv4Address("10.207.1.2")))
    assert net.world.run(20.0, until=lambda: nucleus.rendezvous.snapshot().registry.edges > 0), net.world.context()


def test_a_cluster_goes_on_without_its_nucleus() -> None:
    net = Clusternet()
    open_nats = [Nat(f"203.0.113.{n}", filtering="none") for n in (1, 2)]
    a, b = (net.edge(name, nat=nat) for name, nat in zip("ab", open_nats, strict=True))
    assert net.world.run(5.0, until=net.all_connected)
    net.run(SAVE_AFTER + 1.0)
    members = a.seen(PersistMembers)[-1].members
    net.world.detach(net.nucleus)
    a.crash()
    address = a.vip
    net.run(10.0)
    again = net.edge("a", identity=a.identity, boot=1, nat=open_nats[0], members=members, vip_known=True)
    net.run(4.0)
    assert again.vip is None
    assert net.world.run(15.0, until=lambda: again.connected(b) and b.connected(again)), net.world.context()
    assert again.vip == address and [problem.code for problem in again.snapshot().problems] == ["no_nucleus"]


def test_a_membership_is_renewed_in_time() -> None:
    net = Clusternet()
    a, b = net.edge("a"), net.edge("b")
    assert net.world.run(5.0, until=net.all_connected)
    first = a.seen(PersistSerial)[-1].serial
    for _ in range(4):
        net.world.wall_offset += 4 * 86400
        net.run(130.0)
    assert a.seen(PersistSerial)[-1].serial > first and a.connected(b) and b.connected(a)
    assert not a.seen(PeerDown)


# ---------------------------------------------------------------- what must not work


def test_a_wrong_secret_is_hinted_at_and_kept_out() -> None:
    net = Clusternet()
    right = net.edge("right")
    net.run(3.0)
    wrong = net.edge("wrong", cluster=cluster("another secret entirely"))
    net.run(5.0)
    assert [hint.cluster for hint in wrong.seen(SecretMismatchHint)] == ["testnet"]
    assert right.peer(wrong) is None and wrong.peer(right) is None
    assert not right.seen(SecretMismatchHint)


def test_a_wrong_pinned_key_is_named_and_not_talked_to() -> None:
    net = Clusternet()
    pinned = NucleusConfig(NAME, seeded_identity("the Nucleus of old").public, given=True)
    edge = net.edge("a", nuclei=(pinned,))
    net.run(6.0)
    (mismatch,) = edge.seen(NucleusKeyMismatch)
    assert mismatch.shown == NUCLEUS.public and mismatch.given
    assert edge.vip is None and not edge.snapshot().nuclei[0].registered
    assert edge.snapshot().problems[0].code == "wrong_nucleus_key"


def test_a_pinned_nucleus_needs_no_hello() -> None:
    net = Clusternet()
    edge = net.edge("a", nuclei=(NucleusConfig(NAME, NUCLEUS.public),))
    net.run(2.0)
    assert edge.seen(NucleusUp) and not edge.seen(NucleusPinned) and "hellos" not in net.counters


def test_a_nucleus_that_is_down_is_tried_again_and_said_to_be_down() -> None:
    net = Clusternet()
    net.world.detach(net.nucleus)
    edge = net.edge("a")
    net.run(20.0)
    assert edge.vip is None and [problem.code for problem in edge.snapshot().problems] == ["no_nucleus"]
    net.restart_nucleus()
    assert net.world.run(60.0, until=lambda: edge.vip is not None), net.world.context()
    assert not edge.snapshot().problems and not edge.seen(NucleusDown)


def test_two_names_for_one_nucleus_are_one_session() -> None:
    net = Clusternet()
    edge = net.edge("a", nuclei=(NucleusConfig(NAME), NucleusConfig("other.example:51820")))
    edge.do(lambda node, now: node.set_nucleus_endpoints(now, "other.example:51820", [net.nucleus.address]))
    net.run(120.0)
    first, second = edge.snapshot().nuclei
    assert {first.registered, second.registered} == {True, False} and net.counters["registered"] == 1
    assert "same Nucleus" in (first.hint + second.hint)


@pytest.mark.parametrize("moved", [False, True])
def test_a_router_that_forgets_its_ports_is_survived(moved: bool) -> None:
    net = Clusternet()
    a, b = net.edge("a"), net.edge("b")
    assert net.world.run(5.0, until=net.all_connected)
    assert a.nat is not None
    a.nat.rebind()
    if moved:
        a.send_to(b, "from a new port")
    net.run(70.0)
    a.send_to(b, "still here")
    b.send_to(a, "me too")
    net.run(1.0)
    assert b.heard(a, "still here") and a.heard(b, "me too"), net.world.context()


def test_no_frames_are_made_up() -> None:
    """What the local stack gets was either sent by a member or is an answer to a question of its own."""
    net = Clusternet()
    a, b = net.edge("a"), net.edge("b")
    assert net.world.run(5.0, until=net.all_connected)
    net.run(100.0)
    assert not a.frames and not b.frames
