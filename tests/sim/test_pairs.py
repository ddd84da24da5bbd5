"""Two machines that name each other (`--peer`), without a Nucleus, over every kind of network."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from omninervous.core.events import (
    IdentityCloned,
    NodeConfig,
    PeerConfig,
    PeerDown,
    PeerUp,
    PersistTimestamp,
    Problem,
    VipAssigned,
    VipLost,
)
from omninervous.core.identity import Identity, key_hash, synthetic_mac
from omninervous.core.noise import Initiator
from omninervous.core.tai64n import Tai64nClock
from omninervous.core.vip import parse_vip
from omninervous.wire.address import Endpoint
from omninervous.wire.frame import ETHERTYPE_IPV4, build_ethernet
from omninervous.wire.hello import Hello
from tests.sim.simnet import CALM, ROUGH, Edge, Nat, Weather, World, raw_frame, seeded_identity

A, B = seeded_identity("a"), seeded_identity("b")
A_HOST, B_HOST = "192.0.2.1", "192.0.2.2"
VICTIM = Endpoint("203.0.113.99", 7)


def config(own: Identity, peer: Identity, host: str | None, boot: int = 0, **more: object) -> NodeConfig:
    endpoint = None if host is None else Endpoint(host, 51820)
    known = PeerConfig(peer.x25519_public, peer.public, endpoint)
    return replace(NodeConfig(boot_id=own.public[:15] + bytes([boot]), peers=(known,)), **more)  # type: ignore[arg-type]


def pair(world: World, b_knows_a: bool = True) -> tuple[Edge, Edge]:
    a = world.edge("a", A, config(A, B, B_HOST), A_HOST).start()
    b = world.edge("b", B, config(B, A, A_HOST if b_knows_a else None), B_HOST).start()
    return a, b


def connect(world: World, a: Edge, b: Edge, seconds: float = 10.0) -> None:
    assert world.run(seconds, until=lambda: a.connected(b) and b.connected(a)), world.context()
    world.run(0.5)  # what is still on its way


def exchange(world: World, a: Edge, b: Edge, text: str, seconds: float = 1.0) -> bool:
    a.send_to(b, f"{text} there")
    b.send_to(a, f"{text} back")
    world.run(seconds)
    return b.heard(a, f"{text} there") and a.heard(b, f"{text} back")


def test_a_pair_connects_and_carries_frames() -> None:
    world = World(1)
    a, b = pair(world)
    connect(world, a, b, seconds=1.0)
    assert exchange(world, a, b, "hello")
    (up,) = a.seen(PeerUp)
    assert up.identity == B.public and up.endpoint == Endpoint(B_HOST, 51820)
    status = a.peer(b)
    assert status is not None and status.vip == b.vip and status.mac == B.mac


def test_one_known_address_is_enough() -> None:
    world = World(1)
    a, b = pair(world, b_knows_a=False)
    connect(world, a, b, seconds=1.0)
    assert [up.initiator for up in a.seen(PeerUp)] == [True] and [up.initiator for up in b.seen(PeerUp)] == [False]
    assert exchange(world, a, b, "hello")


def test_frames_wait_for_the_session() -> None:
    world = World(1)
    a, b = pair(world)
    connect(world, a, b)
    b.crash()
    world.run(200.0)
    a.send_to(b, "early")
    assert not a.connected(b)
    again = world.edge("b", B, config(B, A, None, boot=1), B_HOST).start()
    assert world.run(20.0, until=lambda: again.heard(a, "early")), world.context()


@pytest.mark.parametrize("run", range(3))
def test_a_pair_connects_through_rough_weather(seed: int, run: int) -> None:
    world = World(seed + run, replace(ROUGH, loss=0.3))
    a, b = pair(world)
    connect(world, a, b, seconds=60.0)


def test_no_frame_is_lost_over_ten_minutes_of_rekeys() -> None:
    world = World(3)
    a, b = pair(world)
    connect(world, a, b)
    most = 0
    for step in range(1200):
        a.send_to(b, f"a{step}")
        b.send_to(a, f"b{step}")
        world.run(0.5)
        status = a.peer(b)
        assert status is not None
        most = max(most, len(status.sessions))
    world.run(1.0)
    assert sum(b.heard(a, f"a{step}") for step in range(1200)) == 1200
    assert sum(a.heard(b, f"b{step}") for step in range(1200)) == 1200
    assert a.snapshot().handshakes_completed >= 5 and most <= 3


def test_traffic_goes_on_in_rough_weather(seed: int) -> None:
    world = World(seed, ROUGH)
    a, b = pair(world)
    connect(world, a, b, seconds=60.0)
    for step in range(600):
        a.send_to(b, f"{step}")
        world.run(1.0)
    world.weather = CALM
    assert exchange(world, a, b, "calm", seconds=20.0), world.context()
    arrived = sum(b.heard(a, f"{step}") for step in range(600))
    assert arrived > 480, f"{arrived} of 600 {world.context()}"


def test_crossing_handshakes_settle_on_one_session() -> None:
    for seed in range(8):
        world = World(seed)
        a, b = pair(world)
        world.run(2.0)
        ours, theirs = a.peer(b), b.peer(a)
        assert ours is not None and theirs is not None
        assert len(ours.sessions) == 2, "both handshakes came through"
        assert ours.sessions[0].session_id == theirs.sessions[0].session_id
        assert ours.sessions[0].initiator != theirs.sessions[0].initiator


def test_an_idle_pair_stays_connected_and_a_silent_one_is_dropped() -> None:
    world = World(4)
    a, b = pair(world)
    connect(world, a, b)
    world.run(900.0)
    assert a.connected(b) and not a.seen(PeerDown)
    b.crash()
    world.run(185.0)
    assert not a.datapath.activity(), "no key outlives its session"
    assert [down.reason for down in a.seen(PeerDown)] == ["expired"]


@pytest.mark.parametrize("clock", [0.0, -86400.0])
def test_a_restart_is_noticed_even_with_a_clock_that_went_back(clock: float) -> None:
    world = World(5)
    a, b = pair(world)
    connect(world, a, b)
    marks = b.seen(PersistTimestamp)
    b.crash()
    world.run(3.0)
    again = world.edge("b", B, config(B, A, A_HOST, boot=1, timestamp_mark=marks[-1].mark), B_HOST)
    again.wall_offset = clock
    again.start()
    connect(world, again, a, seconds=3.0)
    assert world.run(3.0, until=lambda: exchange(world, a, again, "again")), world.context()
    ours = a.peer(again)
    assert ours is not None and len({session.session_id for session in ours.sessions}) == len(ours.sessions)
    assert not a.seen(IdentityCloned)


def test_two_machines_with_one_identity_are_noticed() -> None:
    world = World(6)
    a, b = pair(world)
    connect(world, a, b)
    world.run(1.0)
    clone = world.edge("clone", B, config(B, A, A_HOST, boot=9), "192.0.2.3").start()
    for step in range(40):
        b.send_to(a, f"b{step}")
        clone.send_to(a, f"c{step}")
        world.run(1.0)
    cloned = a.seen(IdentityCloned)
    assert cloned and cloned[0].identity == B.public and not cloned[0].own


def test_a_peer_that_moves_is_followed_after_a_challenge() -> None:
    world = World(7)
    a, b = pair(world, b_knows_a=False)
    connect(world, a, b)
    b.move(Endpoint("198.51.100.77", 4000))
    b.send_to(a, "from elsewhere")
    world.run(0.2)
    status = a.peer(b)
    assert status is not None and status.endpoint == Endpoint("198.51.100.77", 4000) and status.proven
    assert exchange(world, a, b, "moved")
    assert a.snapshot().handshakes_completed == 1, "no handshake was needed"


def test_a_forged_source_moves_nothing_and_is_not_flooded() -> None:
    world = World(8)
    a, b = pair(world)
    connect(world, a, b)
    world.spoof(VICTIM)
    for step in range(20):
        # Somebody on the way keeps a packet of b and sends it on under the victim's address.
        b.datapath.from_tap(world.boot, raw_frame(b, a, f"captured {step}"))
        for _, data in b.drain(world.now):
            world.inject(VICTIM, a.address, data)
        for more in range(50):
            a.send_to(b, f"data {step} {more}")
        world.run(0.7)
    status = a.peer(b)
    assert status is not None and status.endpoint == b.address
    assert sum(b.heard(a, f"data {step} {more}") for step in range(20) for more in range(50)) == 1000


def test_a_replayed_initiation_cannot_be_used_to_reflect() -> None:
    world = World(9)
    a, b = pair(world, b_knows_a=False)
    initiation = _capture(world, a)
    connect(world, a, b)
    world.spoof(VICTIM)
    for _ in range(30):
        world.inject(VICTIM, b.address, initiation)
        world.run(0.05)
    world.run(10.0)
    world.inject(VICTIM, b.address, initiation)
    world.run(1.0)
    assert b.connected(a)
    assert b.snapshot().drops.get("repeated_initiation", 0) > 0 and b.snapshot().drops["replayed_initiation"] >= 1


def _capture(world: World, edge: Edge) -> bytes:
    """The initiation that an edge is sending right now."""
    captured: list[bytes] = []
    original = world.inject

    def tap(source: Endpoint, target: Endpoint, data: bytes, inside: Nat | None = None) -> None:
        if data[0] == 1 and source == edge.address:
            captured.append(data)
        original(source, target, data, inside)

    world.inject = tap  # type: ignore[method-assign]
    edge.do(lambda node, now: node.reset_sessions(now, "test"))
    world.inject = original  # type: ignore[method-assign]
    return captured[0]


def test_a_stop_is_told_and_the_next_frame_wakes_the_link() -> None:
    world = World(10)
    a, b = pair(world)
    connect(world, a, b)
    b.stop()
    world.run(1.0)
    assert [down.reason for down in a.seen(PeerDown)] == ["closed"]
    before = world.datagrams
    world.run(300.0)
    assert world.datagrams == before, "nobody calls a machine that said goodbye"
    again = world.edge("b", B, config(B, A, None, boot=1), B_HOST).start()
    a.send_to(again, "wake up")
    assert world.run(10.0, until=lambda: again.heard(a, "wake up")), world.context()


def test_a_suspend_drops_all_sessions_and_makes_new_ones() -> None:
    world = World(11)
    a, b = pair(world)
    connect(world, a, b)
    world.run(6.0)  # or the new handshake would count as one that crossed the first
    before = {session.session_id for session in a.peer(b).sessions}  # type: ignore[union-attr]
    a.do(lambda node, now: node.reset_sessions(now, "suspend"))
    assert not a.connected(b)
    world.run(1.0)
    assert a.connected(b) and exchange(world, a, b, "awake")
    assert before.isdisjoint(session.session_id for session in a.peer(b).sessions)  # type: ignore[union-attr]


def test_strangers_get_no_answer() -> None:
    world = World(12)
    a, b = pair(world)
    connect(world, a, b)
    stranger = Endpoint("198.51.100.66", 1)
    world.spoof(stranger)
    eve = seeded_identity("eve")
    sent = world.datagrams
    clock = Tai64nClock(None)
    for index in range(40):
        initiation = Initiator.create(
            eve.x25519_private, A.x25519_public, bytes(32), clock.next(world.now.wall), index, world.entropy("eve")
        )
        world.inject(stranger, a.address, initiation.message)
        world.inject(stranger, a.address, initiation.message[:-32] + bytes(32))
    world.inject(stranger, a.address, Hello(bytes(16)).encode())
    world.inject(stranger, a.address, b"\x02\0\0\0" + bytes(88))
    world.inject(stranger, a.address, b"\x03\0\0\0" + bytes(60))
    world.run(0.5)
    assert world.datagrams == sent + 83, "nothing but what the stranger sent"
    drops = a.snapshot().drops
    assert drops["bad_mac1"] == 40 and drops["unknown_initiator"] == 10 and drops["rate_limited"] == 30
    assert a.snapshot().rate_limited == 30


def test_a_loaded_edge_asks_known_endpoints_for_a_cookie_and_then_answers() -> None:
    world = World(13)
    a = world.edge("a", A, config(A, B, B_HOST), A_HOST).start()
    b = world.edge("b", B, config(B, A, A_HOST, under_load=1), B_HOST).start()
    connect(world, a, b)

    def load() -> None:
        eve = seeded_identity("eve")
        for index in range(3):
            message = Initiator.create(
                eve.x25519_private, B.x25519_public, bytes(32), bytes(12), index, world.entropy("eve")
            ).message
            world.inject(Endpoint(f"198.51.100.{index}", 9), b.address, message)

    for moment in range(20):
        world.at(world.boot + moment * 0.1, load)
    world.run(0.5)
    a.do(lambda node, now: node.reset_sessions(now, "test"))
    world.run(1.5)
    assert b.snapshot().counters["cookies_sent"] > 0
    assert b.snapshot().drops["under_load"] > 0
    assert a.connected(b), world.context()


def test_different_pre_shared_keys_are_named_as_the_problem() -> None:
    world = World(14)
    other = PeerConfig(A.x25519_public, A.public, None, psk=bytes([1] * 32))
    a = world.edge("a", A, config(A, B, B_HOST), A_HOST).start()
    b = world.edge("b", B, NodeConfig(boot_id=bytes(16), peers=(other,)), B_HOST).start()
    world.run(5.0)
    assert not a.connected(b) and not b.connected(a)
    assert [problem.code for problem in a.seen(Problem)] == ["psk_mismatch"]


def test_two_explicit_claims_to_one_address_are_settled_by_the_rule() -> None:
    world = World(15)
    claim = parse_vip("10.200.0.1")
    a = world.edge("a", A, config(A, B, B_HOST, claim=claim), A_HOST).start()
    b = world.edge("b", B, config(B, A, A_HOST, claim=claim), B_HOST).start()
    world.run(2.0)
    winner, loser = (a, b) if key_hash(A.public) < key_hash(B.public) else (b, a)
    assert winner.vip == claim.address and loser.vip is None
    (lost,) = loser.seen(VipLost)
    assert lost.holder == winner.identity.public
    assert [problem.code for problem in winner.seen(Problem)] == ["vip_conflict"] and not winner.snapshot().problems
    assert [problem.code for problem in loser.snapshot().problems] == ["vip_conflict"]


def test_a_derived_claim_gives_way_to_an_explicit_one() -> None:
    world = World(16)
    derived = world.edge("a", A, config(A, B, B_HOST), A_HOST).start()
    address = derived.vip
    assert address is not None
    explicit = world.edge("b", B, config(B, A, A_HOST, claim=parse_vip(str(address))), B_HOST).start()
    world.run(2.0)
    assert explicit.vip == address and derived.vip not in (None, address)
    assert [event.derivation for event in derived.seen(VipAssigned)] == [0, 1]
    status = explicit.peer(derived)
    assert status is not None and status.vip == derived.vip, "the peer was told"


def test_stock_wireguard_peers_talk_layer_three_and_roam_freely() -> None:
    world = World(17)
    net_a, net_b = IPv4Network("10.9.0.1/32"), IPv4Network("10.9.0.2/32")
    a_sees = PeerConfig(B.x25519_public, None, Endpoint(B_HOST, 51820), allowed_ips=(net_b,))
    b_sees = PeerConfig(A.x25519_public, None, None, allowed_ips=(net_a,))
    a = world.edge("a", A, NodeConfig(boot_id=bytes(16), peers=(a_sees,)), A_HOST).start()
    b = world.edge("b", B, NodeConfig(boot_id=bytes(16), peers=(b_sees,)), B_HOST).start()
    world.run(1.0)
    packet = ipv4_packet(IPv4Address("10.9.0.1"), IPv4Address("10.9.0.2"))
    a.transmit(build_ethernet(synthetic_mac(B.x25519_public), A.mac, ETHERTYPE_IPV4, packet))
    world.run(1.0)
    assert build_ethernet(B.mac, synthetic_mac(A.x25519_public), ETHERTYPE_IPV4, packet) in b.frames
    a.move(Endpoint("198.51.100.1", 4444))
    a.transmit(build_ethernet(synthetic_mac(B.x25519_public), A.mac, ETHERTYPE_IPV4, packet))
    world.run(0.1)
    status = b.peer(a)
    assert status is not None and status.endpoint == a.address and status.kind == "wireguard"


def ipv4_packet(source: IPv4Address, destination: IPv4Address) -> bytes:
    payload = b"12345678"
    return (
        bytes([0x45, 0, 0, 20 + len(payload), 0, 0, 0, 0, 64, 253, 0, 0]) + source.packed + destination.packed + payload
    )


def test_a_seed_is_a_whole_run(seed: int) -> None:
    def trace() -> str:
        world = World(seed, ROUGH)
        a, b = pair(world)
        for step in range(60):
            a.send_to(b, f"{step}")
            world.run(3.0)
        return world.trace

    assert trace() == trace()


def test_a_machine_without_peers_is_quiet() -> None:
    world = World(18, Weather())
    a = world.edge("a", A, NodeConfig(boot_id=bytes(16)), A_HOST).start()
    world.run(600.0)
    assert a.vip is not None and world.datagrams == 0


def test_a_refused_address_is_taken_when_its_holder_lets_it_go() -> None:
    world = World(19)
    claim = parse_vip("10.200.0.1")
    first, second = (A, B) if key_hash(A.public) < key_hash(B.public) else (B, A)
    winner = world.edge("w", first, config(first, second, B_HOST, claim=claim), A_HOST).start()
    loser = world.edge("l", second, config(second, first, A_HOST, claim=claim), B_HOST).start()
    world.run(2.0)
    assert loser.vip is None and [problem.code for problem in loser.snapshot().problems] == ["vip_conflict"]
    winner.crash()
    world.run(2.0)
    changed = config(
        first,
        second,
        B_HOST,
        boot=1,
        claim=parse_vip("10.200.0.2"),
        timestamp_mark=winner.seen(PersistTimestamp)[-1].mark,
    )
    world.edge("w", first, changed, A_HOST).start()
    assert world.run(10.0, until=lambda: loser.vip == claim.address), world.context()
    assert not loser.snapshot().problems
