"""Whatever the network, a peer, or the local stack sends: a Node never raises, and its timers stay in the future."""

from __future__ import annotations

from ipaddress import IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from omninervous.core.dataplane import (
    ControlReceived,
    DatagramReceived,
    Event,
    FrameUnresolved,
    FrameWithoutSession,
    SessionConfirmed,
    SessionExhausted,
    SourceChanged,
    UnderlayError,
)
from omninervous.core.events import PeerConfig
from omninervous.core.membership import issue
from omninervous.core.vip import derive_claim
from omninervous.wire.membership import VipClaim
from omninervous.wire.signalling import (
    HeartbeatAck,
    HeartbeatStatus,
    PeerEntry,
    PeerInfo,
    PeerStatus,
    Probe,
    RegisterAck,
    RegisterStatus,
)
from omninervous.wire.tlv import CONTROL_KIND
from tests.nodes import X, Y, Z
from tests.sim.simnet import Edge, World
from tests.sim.test_cluster import NUCLEUS, Clusternet, cluster
from tests.sim.test_pairs import A, B, connect, pair

SIZES = {1: 148, 2: 92, 3: 64, 5: 64, 6: 56}
KEYS = st.sampled_from([A.x25519_public, B.x25519_public, bytes(32)])
ENDPOINTS = st.sampled_from([X, Y, Z])


@st.composite
def datagrams(draw: st.DrawFn) -> Event:
    kind = draw(st.sampled_from(sorted(SIZES)))
    return DatagramReceived(
        draw(ENDPOINTS), bytes((kind, 0, 0, 0)) + draw(st.binary(min_size=SIZES[kind] - 4, max_size=SIZES[kind] - 4))
    )


@st.composite
def fields(draw: st.DrawFn) -> bytes:
    values = draw(st.lists(st.tuples(st.integers(0, 12), st.binary(max_size=40)), max_size=6))
    return b"".join(bytes((number,)) + len(value).to_bytes(2, "big") + value for number, value in values)


@st.composite
def controls(draw: st.DrawFn, indices: st.SearchStrategy[int]) -> Event:
    payload = bytes((CONTROL_KIND, draw(st.integers(0, 0x50)))) + draw(fields())
    return ControlReceived(draw(KEYS), draw(indices), payload, draw(ENDPOINTS), draw(st.integers(32, 1500)))


def events(indices: st.SearchStrategy[int]) -> st.SearchStrategy[Event]:
    frames = st.binary(max_size=120)
    return st.one_of(
        datagrams(),
        controls(indices),
        st.builds(SessionConfirmed, KEYS, indices, ENDPOINTS),
        st.builds(SourceChanged, KEYS, indices, ENDPOINTS, st.integers(32, 1500)),
        st.builds(FrameWithoutSession, KEYS, frames),
        st.builds(FrameUnresolved, frames),
        st.builds(SessionExhausted, KEYS, indices),
        st.builds(UnderlayError, ENDPOINTS, st.integers(1, 130)),
    )


def living_pair() -> tuple[World, Edge, Edge]:
    world = World(1)
    a, b = pair(world)
    connect(world, a, b)
    return world, a, b


@given(st.data())
def test_no_event_breaks_a_node(data: st.DataObject) -> None:
    world, a, b = living_pair()
    status = a.peer(b)
    assert status is not None
    indices = st.sampled_from([session.local_index for session in status.sessions] + [0, 0xFFFFFFFF])
    for event in data.draw(st.lists(events(indices), max_size=20)):
        a.do(lambda node, now, event=event: node.handle_events(now, [event]))  # type: ignore[misc]
        world.run(data.draw(st.sampled_from([0.0, 0.3, 7.0])))
    world.run(30.0)


NAMED = [
    PeerConfig(A.x25519_public, A.public, X),
    PeerConfig(B.x25519_public, B.public, Y),
    PeerConfig(B.x25519_public, B.public, None, bytes([1]) * 32),
    PeerConfig(B.x25519_public, None, Y, allowed_ips=(IPv4Network("10.9.0.0/24"),)),
    PeerConfig(bytes([9]) * 32, None, Z, allowed_ips=(IPv4Network("10.0.0.0/8"),)),
]


@given(st.data())
def test_events_of_peers_that_were_just_named_or_removed_break_nothing(data: st.DataObject) -> None:
    world, a, b = living_pair()
    status = a.peer(b)
    assert status is not None
    indices = st.sampled_from([session.local_index for session in status.sessions] + [0])
    lists = st.lists(st.sampled_from(NAMED), max_size=3, unique_by=lambda each: each.x25519)
    for peers, event in data.draw(st.lists(st.tuples(lists, events(indices)), max_size=8)):
        a.do(lambda node, now, peers=peers: node.set_peers(now, peers))  # type: ignore[misc]
        a.do(lambda node, now, event=event: node.handle_events(now, [event]))  # type: ignore[misc]
        world.run(data.draw(st.sampled_from([0.0, 0.3, 7.0])))
    b_again = PeerConfig(B.x25519_public, B.public, b.address)
    a.do(lambda node, now: node.set_peers(now, [b_again]))
    assert world.run(60.0, until=lambda: a.connected(b)), world.context()


def entries(edge: Edge) -> st.SearchStrategy[PeerEntry]:
    """Members, the edge itself, claims to its address, and forgeries."""
    vip = edge.vip
    assert vip is not None
    rival = VipClaim(vip, 13)
    wall = edge.now.wall
    raws = [
        issue(A, cluster(), derive_claim(A.public, 0), "a", 1, wall),
        issue(A, cluster(), rival, "a", 2, wall),
        issue(B, cluster(), rival, "b", 1, wall),
        issue(edge.identity, cluster(), rival, None, 1, wall),
        issue(B, cluster("another secret entirely"), rival, "b", 9, wall),
        bytes(300),
    ]
    return st.builds(
        PeerEntry, st.sampled_from(raws), st.none() | ENDPOINTS, st.lists(ENDPOINTS, max_size=2).map(tuple)
    )


@st.composite
def answers(draw: st.DrawFn, edge: Edge) -> bytes:
    """What a Nucleus may say, fitting or not."""
    request, version = draw(st.integers(0, 12)), st.integers(0, 5)
    some, cursor = st.lists(entries(edge), max_size=2).map(tuple), st.none() | st.just(bytes(32))
    lists, one, flag = draw(some), draw(st.none() | entries(edge)), st.booleans()
    match draw(st.integers(0, 3)):
        case 0:
            status = draw(st.sampled_from(RegisterStatus))
            numbers = (draw(version), draw(version))
            ack = RegisterAck(request, status, *numbers, None, lists, draw(cursor), one, draw(st.integers(0, 2)))
            return ack.encode()
        case 1:
            return HeartbeatAck(
                request,
                epoch=draw(version),
                from_version=draw(version),
                version=draw(version),
                status=draw(st.sampled_from(HeartbeatStatus)),
                joined=lists,
                left=tuple(draw(st.lists(KEYS, max_size=2))),
                more=draw(flag),
                cursor=draw(cursor),
                holder=one,
                snapshot=draw(flag),
            ).encode()
        case 2:
            found = PeerStatus.NOT_FOUND if one is None else PeerStatus.FOUND
            return PeerInfo(request, found, one, draw(flag), draw(flag)).encode()
    return Probe(draw(st.binary(min_size=8, max_size=8))).encode()


@given(st.data())
def test_no_nucleus_breaks_a_node(data: st.DataObject) -> None:
    net = Clusternet()
    edge = net.edge("edge")
    net.run(1.0)
    key = NUCLEUS.x25519_public
    for payload in data.draw(st.lists(answers(edge), max_size=12)):
        said = ControlReceived(key, 1, payload, net.nucleus.address, len(payload) + 32)
        edge.do(lambda node, now, said=said: node.handle_events(now, [said]))  # type: ignore[misc]
        net.run(data.draw(st.sampled_from([0.0, 1.1, 35.0])))
    net.run(200.0)
    assert edge.vip is not None, "an honest Nucleus mends it"
