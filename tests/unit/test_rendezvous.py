"""The Nucleus as edges meet it: real handshakes and signatures, no sockets, a clock that the test moves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from omninervous.core.nucleus_handshakes import HandshakeLimits
from omninervous.core.nucleus_sessions import AMPLIFICATION_LIMIT
from omninervous.core.rendezvous import RendezvousConfig
from omninervous.core.secret import derive_cluster
from omninervous.core.viewlog import ViewPosition
from omninervous.core.vip import derive_claim
from omninervous.wire.address import Endpoint
from omninervous.wire.control import Close, CloseReason
from omninervous.wire.handshake import (
    COOKIE_REPLY_SIZE,
    INITIATION_SIZE,
    RESPONSE_SIZE,
    MessageType,
    decode_cookie_reply,
)
from omninervous.wire.hello import HELLO_SIZE, Hello, decode_hello_reply
from omninervous.wire.signalling import (
    Heartbeat,
    HeartbeatAck,
    HeartbeatStatus,
    PeerInfo,
    PeerStatus,
    Probe,
    QueryPeer,
    RegisterAck,
    RegisterStatus,
)
from tests.nucleus_edges import FLEET, Edge, World, explicit

ELSEWHERE = Endpoint("198.51.100.9", 9)


def register_ack(world: World, edge: Edge) -> RegisterAck:
    ack = world.ask(edge, edge.register(world.now))
    assert isinstance(ack, RegisterAck)
    return ack


def heartbeat_ack(world: World, edge: Edge, position: ViewPosition | None = None) -> HeartbeatAck:
    ack = world.ask(edge, edge.heartbeat(position))
    assert isinstance(ack, HeartbeatAck)
    return ack


# ---------------------------------------------------------------- silence


def test_hello_is_answered_by_something_smaller() -> None:
    world = World()
    hello = Hello(b"n" * 16).encode()
    ((where, reply),) = world.deliver(ELSEWHERE, hello)
    assert where == ELSEWHERE and len(reply) < len(hello)
    assert decode_hello_reply(reply).identity == world.identity.public


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "bad_type"),
        (b"\x00" * 64, "bad_type"),
        (Hello(bytes(16)).encode()[:-1], "malformed"),
        (Hello(bytes(16)).encode() + b"\0", "malformed"),
        (Hello(bytes(16)).encode()[: HELLO_SIZE - 1] + b"\1", "malformed"),
        (b"\x01" + bytes(INITIATION_SIZE - 1), "bad_mac1"),
        (b"\x02" + bytes(RESPONSE_SIZE - 1), "bad_type"),
        (b"\x03" + bytes(COOKIE_REPLY_SIZE - 1), "bad_type"),
        (b"\x04\0\0\0" + bytes(60), "unknown_session"),
        (b"\x06" + bytes(55), "bad_type"),
    ],
)
def test_what_proves_nothing_is_counted_and_not_answered(datagram: bytes, reason: str) -> None:
    world = World()
    assert world.deliver(ELSEWHERE, datagram) == []
    assert world.counter(f"drop_{reason}") == 1


def test_payloads_that_are_data_are_dropped_and_close_ends_the_session() -> None:
    world = World()
    edge = world.member(1)
    assert world.say(edge, b"\x01" + bytes(60)) == []
    assert world.say(edge, b"\x45" + bytes(60)) == []
    assert world.counter("drop_data_refused") == 2
    assert world.say(edge, b"") == []
    assert world.nucleus.snapshot().sessions == 1
    world.say(edge, Close(CloseReason.SHUTDOWN).encode())
    assert world.nucleus.snapshot().sessions == 0


def test_a_replayed_message_has_no_effect() -> None:
    world = World()
    edge = world.edge(1)
    datagram = edge.seal(edge.register(world.now))
    assert len(world.deliver(edge.endpoint, datagram)) == 1
    assert world.deliver(edge.endpoint, datagram) == []
    assert world.counter("drop_replay") == 1


def test_an_edge_that_talks_too_much_is_not_listened_to() -> None:
    world = World(RendezvousConfig(messages_per_edge=1, message_burst=3))
    edge = world.member(1)
    answers = [len(world.say(edge, edge.heartbeat())) for _ in range(4)]
    assert answers == [1, 1, 0, 0]
    world.wait(1.0)
    assert len(world.say(edge, edge.heartbeat())) == 1


# ---------------------------------------------------------------- handshakes


def test_a_copy_of_an_initiation_brings_the_same_response_and_no_second_session() -> None:
    world = World()
    edge = Edge(1, world.identity.x25519_public, ELSEWHERE)
    initiation = edge.initiation(world.now)
    ((_, first),) = world.deliver(ELSEWHERE, initiation)
    ((where, second),) = world.deliver(Endpoint("198.51.100.10", 9), initiation)
    assert first == second and where.host == "198.51.100.10"
    assert world.nucleus.snapshot().sessions == 1
    edge.finish(world.now, second)
    world.say(edge, edge.heartbeat())
    assert world.deliver(ELSEWHERE, initiation) == []
    assert world.counter("drop_old_timestamp") == 1


def test_a_copy_of_an_initiation_from_a_forged_address_brings_no_flood_there() -> None:
    world = World()
    fleet = derive_cluster("of the attacker", None)
    for number in range(10, 20):
        world.member(number, cluster=fleet)
    edge = Edge(1, world.identity.x25519_public, ELSEWHERE, cluster=fleet)
    victim = Endpoint("198.51.100.10", 53)
    initiation = edge.initiation(world.now)
    ((_, response),) = world.deliver(ELSEWHERE, initiation)
    edge.finish(world.now, response)
    forged = [initiation, edge.seal(edge.register(world.now)), *(edge.seal(edge.heartbeat()) for _ in range(30))]
    received = [data for datagram in forged for where, data in world.deliver(victim, datagram) if where == victim]
    assert 0 < sum(map(len, received)) <= AMPLIFICATION_LIMIT * sum(map(len, forged))
    watcher = world.member(9, cluster=fleet)
    answer = world.ask(watcher, watcher.query(edge.key))
    assert isinstance(answer, PeerInfo) and answer.entry is not None and answer.entry.reflexive is None
    # Who answers the PROBE is there.
    messages = [edge.open(world.now, data) for data in received if data[0] == MessageType.TRANSPORT]
    (probe,) = [each for each in messages if isinstance(each, Probe)]
    world.deliver(victim, edge.seal(edge.heartbeat(token=probe.token)))
    answer = world.ask(watcher, watcher.query(edge.key))
    assert isinstance(answer, PeerInfo) and answer.entry is not None and answer.entry.reflexive == victim


def test_strangers_beyond_the_limit_get_a_cookie_and_with_it_their_own_budget() -> None:
    limits = HandshakeLimits(per_source=2, per_source_with_cookie=2)
    world = World(RendezvousConfig(handshakes=limits))
    nat = "203.0.113.7"
    edges = [Edge(number, world.identity.x25519_public, Endpoint(nat, 1000 + number)) for number in range(1, 6)]
    sizes = []
    for edge in edges:
        ((_, answer),) = world.deliver(edge.endpoint, edge.initiation(world.now))
        sizes.append(len(answer))
        if len(answer) == COOKIE_REPLY_SIZE:
            edge.macs.handle_reply(world.now.boot, decode_cookie_reply(answer))
    assert sizes == [RESPONSE_SIZE] * 2 + [COOKIE_REPLY_SIZE] * 3
    with_cookie = [
        [len(answer) for _, answer in world.deliver(edge.endpoint, edge.copy(world.now))] for edge in edges[2:]
    ]
    assert with_cookie == [[RESPONSE_SIZE], [RESPONSE_SIZE], []]
    assert world.counter("drop_rate_limited") == 1


def test_rekeys_of_known_endpoints_do_not_count_as_new_sessions() -> None:
    world = World(RendezvousConfig(handshakes=HandshakeLimits(per_source=1)))
    edge = world.member(1)
    for _ in range(3):
        world.handshake(edge)
        heartbeat_ack(world, edge)
    assert world.counter("cookie_replies") == 0
    assert world.nucleus.snapshot().sessions == 3  # at most three of one key


def test_a_session_survives_its_rekey_and_ends_after_three_minutes() -> None:
    world = World()
    edge = world.member(1)
    world.wait(120.0)
    world.handshake(edge)
    assert heartbeat_ack(world, edge).status is HeartbeatStatus.UNKNOWN  # silent for 120 s
    register_ack(world, edge)
    world.wait(80.0)
    world.handshake(edge)
    assert heartbeat_ack(world, edge).status is HeartbeatStatus.OK  # the new session goes on where the old one was
    world.wait(200.0)
    assert world.nucleus.snapshot().sessions == 0


def test_a_handshake_that_nobody_uses_is_forgotten_after_seconds() -> None:
    world = World()
    world.edge(1)
    world.wait(9.0)
    assert world.nucleus.snapshot().sessions == 1
    world.wait(2.0)
    assert world.nucleus.snapshot().sessions == 0


def test_when_the_table_is_full_unused_sessions_go_first() -> None:
    world = World(RendezvousConfig(max_sessions=3))
    used = [world.member(1), world.member(2)]
    for number in range(3, 8):
        world.edge(number)
    assert world.nucleus.snapshot().sessions == 3
    for edge in used:
        assert heartbeat_ack(world, edge).status is HeartbeatStatus.OK


# ---------------------------------------------------------------- membership


def test_register_tells_who_is_there_and_where_the_edge_is_seen() -> None:
    world = World()
    first = world.member(1)
    second = world.edge(2)
    ack = register_ack(world, second)
    assert ack.status is RegisterStatus.OK and ack.observed == second.endpoint
    assert [entry.membership for entry in ack.peers] == [first.membership(world.now)]
    assert ack.peers[0].reflexive == first.endpoint
    news = heartbeat_ack(world, first)
    assert [entry.membership for entry in news.joined] == [second.membership(world.now)]


def test_a_membership_must_verify_and_be_the_sessions_own() -> None:
    world = World()
    edge, other = world.edge(1), world.edge(2)
    message = edge.register(world.now)
    stolen = other.seal(message)
    ((_, answer),) = world.deliver(other.endpoint, stolen)
    ack = other.open(world.now, answer)
    assert isinstance(ack, RegisterAck) and ack.status is RegisterStatus.REFUSED
    assert world.counter("drop_not_its_membership") == 1
    stranger = world.edge(3, cluster=derive_cluster("fleet", "another secret of 16"))
    forged = replace(stranger.register(world.now), cluster_public=FLEET.public)
    refused = world.ask(stranger, forged)
    assert isinstance(refused, RegisterAck) and refused.status is RegisterStatus.REFUSED
    assert world.counter("drop_membership_wrong_cluster") == 1
    assert world.nucleus.snapshot().registry.edges == 0


def test_clusters_of_one_name_under_two_keys_are_apart_and_hint_at_each_other() -> None:
    world = World()
    world.member(1)
    wrong = world.edge(2, cluster=derive_cluster("fleet", "a wrong secret of 16"))
    ack = register_ack(world, wrong)
    assert ack.status is RegisterStatus.OK and ack.peers == () and ack.other_keys == 1
    assert world.nucleus.snapshot().registry == (2, 2)


def test_leaving_is_told_and_crashing_noticed_after_ninety_seconds() -> None:
    world = World()
    watcher, leaver, crasher = world.member(1), world.member(2), world.member(3)
    first = heartbeat_ack(world, watcher)
    position = ViewPosition(first.epoch, first.version, None)
    world.say(leaver, leaver.leave())
    second = heartbeat_ack(world, watcher, position)
    assert second.left == (leaver.key,) and not second.joined
    world.wait(60.0)
    assert heartbeat_ack(world, watcher, ViewPosition(second.epoch, second.version, None)).left == ()
    world.wait(31.0)
    assert heartbeat_ack(world, watcher, ViewPosition(second.epoch, second.version, None)).left == (crasher.key,)


def test_a_heartbeat_of_nobody_is_told_to_register() -> None:
    world = World()
    edge = world.edge(1)
    assert heartbeat_ack(world, edge).status is HeartbeatStatus.UNKNOWN


def test_a_probe_goes_elsewhere_only_to_the_proven_address_of_who_asks_for_it() -> None:
    world = World()
    edge = world.edge(1)
    elsewhere = edge.endpoint._replace(port=7)
    datagram = edge.seal(Heartbeat(1, 0, 0, probe_at=elsewhere))
    probe, ack = world.deliver(edge.endpoint, datagram)
    assert probe[0] == elsewhere and len(probe[1]) < len(datagram)
    assert isinstance(edge.open(world.now, probe[1]), Probe)
    answer = edge.open(world.now, ack[1])
    assert isinstance(answer, HeartbeatAck) and answer.probed and answer.observed == edge.endpoint
    stranger, moved = Endpoint("192.0.2.251", 7), Endpoint("192.0.2.252", 7)
    refused = world.say(edge, Heartbeat(2, 0, 0, probe_at=stranger))
    refused += world.say(edge, Heartbeat(3, 0, 0, probe_at=moved._replace(port=8)), source=moved)
    member = world.member(2)
    refused += world.say(member, Heartbeat(4, 0, 0, probe_at=member.endpoint._replace(port=7)))
    assert {where for where, _ in refused} <= {edge.endpoint, moved, member.endpoint}
    assert world.counter("probed_elsewhere") == 1


# ---------------------------------------------------------------- addresses and clones


def test_an_explicit_address_displaces_a_derived_one_and_the_loser_is_told() -> None:
    world = World()
    derived = world.member(1)
    address = str(derive_claim(derived.identity.public, 0).address)
    claimer = world.edge(2, claim=explicit(address))
    sent = world.say(claimer, claimer.register(world.now))
    probes = [derived.open(world.now, data) for where, data in sent if where == derived.endpoint]
    assert [type(each) for each in probes] == [Probe]
    lost = heartbeat_ack(world, derived)
    assert lost.status is HeartbeatStatus.VIP_LOST
    assert lost.holder is not None and lost.holder.membership == claimer.membership(world.now)
    derived.claim = derive_claim(derived.identity.public, 1)
    assert register_ack(world, derived).status is RegisterStatus.OK
    assert heartbeat_ack(world, derived).status is HeartbeatStatus.OK


def test_the_live_holder_keeps_an_explicit_address() -> None:
    world = World()
    holder = world.member(1, claim=explicit("10.200.0.1"))
    late = world.edge(2, claim=explicit("10.200.0.1"))
    ack = register_ack(world, late)
    assert ack.status is RegisterStatus.VIP_TAKEN
    assert ack.holder is not None and ack.holder.membership == holder.membership(world.now)
    world.say(holder, holder.leave())
    assert register_ack(world, late).status is RegisterStatus.OK


def answer_probe(world: World, edge: Edge, datagram: bytes) -> None:
    probe = edge.open(world.now, datagram)
    assert isinstance(probe, Probe)
    world.say(edge, edge.heartbeat(token=probe.token))


def test_a_clone_of_a_live_edge_is_turned_away() -> None:
    world = World()
    edge = world.member(1)
    clone = Edge(1, world.identity.x25519_public, ELSEWHERE, boot=7)
    world.now = world.now._replace(wall=world.now.wall + 1)
    world.handshake(clone)
    sent = world.say(clone, clone.register(world.now))
    answers = [clone.open(world.now, data) for where, data in sent if where == clone.endpoint]
    assert [each.status for each in answers if isinstance(each, RegisterAck)] == [RegisterStatus.PENDING]
    (probe,) = [data for where, data in sent if where == edge.endpoint]
    answer_probe(world, edge, probe)
    assert register_ack(world, clone).status is RegisterStatus.CLONED
    assert heartbeat_ack(world, edge).status is HeartbeatStatus.OK


def test_a_newcomer_that_waits_cannot_speak_for_the_holder() -> None:
    world = World()
    holder, other = world.member(1), world.member(2)
    newcomer = Edge(1, world.identity.x25519_public, ELSEWHERE, boot=7)
    world.handshake(newcomer)
    world.say(newcomer, newcomer.register(world.now))
    world.say(newcomer, newcomer.leave())
    sent = world.say(newcomer, newcomer.query(other.key))
    assert all(where == ELSEWHERE for where, _ in sent)
    assert heartbeat_ack(world, newcomer).status is HeartbeatStatus.CLONED
    assert heartbeat_ack(world, holder).status is HeartbeatStatus.OK


def test_a_restarted_edge_takes_over_when_its_old_self_is_silent() -> None:
    world = World()
    old = world.member(1)
    new = Edge(1, world.identity.x25519_public, ELSEWHERE, boot=7)
    world.handshake(new)
    ack = [new.open(world.now, data) for where, data in world.say(new, new.register(world.now)) if where == ELSEWHERE]
    assert [each.status for each in ack if isinstance(each, RegisterAck)] == [RegisterStatus.PENDING]
    probes = world.wait(2.9)
    assert [where for where, _ in probes] == [old.endpoint, old.endpoint]  # asked three times in all
    assert register_ack(world, new).status is RegisterStatus.PENDING
    world.wait(0.2)
    assert register_ack(world, new).status is RegisterStatus.OK
    assert heartbeat_ack(world, old).status is HeartbeatStatus.CLONED
    assert world.nucleus.snapshot().registry.edges == 1


def test_a_heartbeat_without_the_token_does_not_prove_that_the_holder_lives() -> None:
    world = World()
    old = world.member(1)
    new = Edge(1, world.identity.x25519_public, ELSEWHERE, boot=7)
    world.handshake(new)
    world.say(new, new.register(world.now))
    world.say(old, old.heartbeat())  # was on its way when the old daemon died
    world.wait(3.1)
    assert register_ack(world, new).status is RegisterStatus.OK


# ---------------------------------------------------------------- roaming


def test_a_moved_edge_gets_three_times_its_bytes_until_it_answers_a_probe() -> None:
    world = World()
    edge, others = world.edge(1), [world.member(number) for number in range(2, 30)]
    register_ack(world, edge)
    message = edge.seal(edge.heartbeat())
    sent = world.deliver(ELSEWHERE, message)
    assert {where for where, _ in sent} == {ELSEWHERE}
    assert sum(len(data) for _, data in sent) <= 3 * len(message)
    told = world.ask(others[0], QueryPeer(99, key=edge.key))
    assert isinstance(told, PeerInfo) and told.entry is not None and told.entry.reflexive == edge.endpoint
    probe = next(each for each in (edge.open(world.now, data) for _, data in sent) if isinstance(each, Probe))
    ((_, answer),) = world.deliver(ELSEWHERE, edge.seal(edge.heartbeat(token=probe.token)))
    ack = edge.open(world.now, answer)
    assert isinstance(ack, HeartbeatAck) and ack.joined and ack.observed == ELSEWHERE
    told = world.ask(others[0], QueryPeer(100, key=edge.key))
    assert isinstance(told, PeerInfo) and told.entry is not None and told.entry.reflexive == ELSEWHERE


def test_an_overtaken_packet_does_not_move_the_edge_back() -> None:
    world = World()
    edge = world.member(1)
    old, new = edge.seal(edge.heartbeat()), edge.seal(edge.heartbeat())
    world.deliver(ELSEWHERE, new)
    assert {where for where, _ in world.deliver(edge.endpoint, old)} <= {ELSEWHERE}


# ---------------------------------------------------------------- queries


def test_a_query_is_answered_and_pushed_so_that_both_sides_punch() -> None:
    world = World()
    asker, target = world.member(1), world.member(2)
    sent = world.say(asker, asker.query(target.key))
    (answer,) = [asker.open(world.now, data) for where, data in sent if where == asker.endpoint]
    (push,) = [target.open(world.now, data) for where, data in sent if where == target.endpoint]
    assert isinstance(answer, PeerInfo) and answer.entry is not None and answer.entry.reflexive == target.endpoint
    assert isinstance(push, PeerInfo) and push.entry is not None and push.entry.reflexive == asker.endpoint
    assert push.request == 0 and push.punch


def test_vip_ula_mac_and_key_find_the_same_member() -> None:
    world = World()
    asker, target = world.member(1, claim=explicit("10.200.0.1")), world.member(2, claim=explicit("10.200.0.2"))
    member = explicit("10.200.0.2").address
    for question in (
        QueryPeer(1, address=member),
        QueryPeer(2, address=target.identity.ula),
        QueryPeer(3, mac=target.identity.mac),
        QueryPeer(4, key=target.key),
    ):
        answer = world.ask(asker, question)
        assert isinstance(answer, PeerInfo) and answer.status is PeerStatus.FOUND and answer.entry is not None
        assert answer.entry.membership == target.membership(world.now)
    nobody = world.ask(asker, QueryPeer(5, key=bytes(32)))
    assert isinstance(nobody, PeerInfo) and nobody.status is PeerStatus.NOT_FOUND


def test_a_query_reaches_only_members_of_the_same_cluster_and_asks_strangers_to_register() -> None:
    world = World()
    asker = world.member(1)
    stranger = world.member(2, cluster=derive_cluster("other", None))
    answer = world.ask(asker, asker.query(stranger.key))
    assert isinstance(answer, PeerInfo) and answer.status is PeerStatus.NOT_FOUND
    unregistered = world.edge(3)
    assert isinstance(world.ask(unregistered, unregistered.query(asker.key)), Probe)
    assert world.counter("drop_not_registered") == 1


def test_pushes_are_limited_so_that_no_member_can_use_the_nucleus_to_flood_another() -> None:
    world = World(RendezvousConfig(pushes_per_edge=1, push_burst=5, push_burst_per_pair=20))
    asker, target = world.member(1), world.member(2)
    pushed = 0
    for _ in range(20):
        sent = world.say(asker, asker.query(target.key))
        pushed += sum(where == target.endpoint for where, _ in sent)
        assert sum(where == asker.endpoint for where, _ in sent) == 1
    assert pushed == 5


def test_a_member_that_asks_without_end_keeps_nobody_else_from_punching() -> None:
    world = World()
    asker, greedy, target = world.member(1), world.member(2), world.member(3)
    for _ in range(300):
        world.say(greedy, greedy.query(target.key))
    pushed = []
    for _ in range(10):
        for _ in range(20):
            world.wait(0.05)
            world.say(greedy, greedy.query(target.key))
        before = world.counter("pushed")
        world.say(asker, asker.query(target.key))
        pushed.append(world.counter("pushed") - before)
    assert pushed == [1] * 10
