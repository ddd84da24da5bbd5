"""The data path between two edges: what crosses, what becomes an event, what is dropped and how it is counted."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from omninervous.core.dataplane import (
    ControlReceived,
    DeliverFrames,
    FrameUnresolved,
    FrameWithoutSession,
    InstallSession,
    Link,
    RemoveSession,
    SelectSession,
    SendFrames,
    SetEndpoint,
    SetFlood,
    SetPeer,
)
from omninervous.synapse.datapath import MAX_FRAME
from omninervous.wire.address import Endpoint
from omninervous.wire.frame import ARP_REQUEST, BROADCAST_MAC, ETHERTYPE_IPV4, build_ethernet, complete_checksum
from omninervous.wire.payload import PayloadKind
from tests.datapaths import (
    FAR_FUTURE,
    Side,
    arp_frame,
    carry,
    drops,
    ipv4,
    partial,
    twins,
    udp,
    udp_frame,
)

ELSEWHERE = Endpoint("203.0.113.9", 4242)
KEEPALIVE_SIZE = 32
SLOW_SIZES = {1: 148, 2: 92, 3: 64, 5: 64, 6: 56}


def control(text: bytes = b"\x01") -> bytes:
    return bytes([PayloadKind.CONTROL]) + text


# ---------------------------------------------------------------- Ethernet members


def test_frames_arrive_as_they_were_sent() -> None:
    one, two = twins()
    frames = [
        udp_frame(one, two),
        udp_frame(one, two, tags=bytes.fromhex("8100002a")),
        build_ethernet(two.mac, one.mac, 0x88B5, b"raw"),
        build_ethernet(two.mac, one.mac, 0x88B5, b""),
    ]
    assert carry(one, two, frames) == frames
    assert drops(one) == drops(two) == {}


def test_broadcast_and_multicast_go_to_every_proven_member_of_the_flood_set() -> None:
    one, two = twins()
    _, three = twins(1)
    three.number = 3
    stranger = b"\x09" * 32
    one.number = 4  # another local index for the second session
    one.datapath.submit(0.0, one.introduce(three)[:-1])
    one.number = 1
    one.datapath.submit(0.0, [SetPeer(stranger, Link.ETHERNET), SetFlood((three.id, stranger, two.id))])
    for destination in (BROADCAST_MAC, bytes.fromhex("01005e0000fb")):
        one.datapath.from_tap(1.0, build_ethernet(destination, one.mac, 0x88B5, b"all"))
        assert [endpoint for endpoint, _ in one.take().datagrams] == [three.endpoint, two.endpoint]
    one.datapath.submit(0.0, [SetFlood(())])
    one.datapath.from_tap(1.0, build_ethernet(BROADCAST_MAC, one.mac, 0x88B5, b"all"))
    assert drops(one) == {"no_peers": 1}


def test_a_frame_of_another_machine_behind_us_is_not_sent() -> None:
    one, two = twins()
    one.datapath.from_tap(1.0, build_ethernet(two.mac, bytes([2, 0, 0, 0, 0, 9]), 0x88B5, b"x"))
    assert one.take().datagrams == []
    assert drops(one) == {"bridged_source": 1}


def test_questions_go_to_the_core_and_announcements_nowhere() -> None:
    one, two = twins()
    question = arp_frame(ARP_REQUEST, (one.mac, one.vip), (bytes(6), two.vip))
    one.datapath.from_tap(1.0, question)
    one.datapath.from_tap(1.0, arp_frame(ARP_REQUEST, (one.mac, one.vip), (bytes(6), one.vip)))
    output = one.take()
    assert (output.events, output.datagrams) == ([FrameUnresolved(question)], [])
    assert drops(one) == {"arp_local": 1}


def test_unicast_to_an_unknown_mac_goes_to_the_core() -> None:
    one, _ = twins()
    frame = build_ethernet(bytes([2, 0, 0, 0, 0, 9]), one.mac, 0x88B5, b"x")
    one.datapath.from_tap(1.0, frame)
    assert one.take().events == [FrameUnresolved(frame)]


@pytest.mark.parametrize("missing", ["endpoint", "selection", "session", "time"])
def test_a_frame_without_a_way_is_told_to_the_core(missing: str) -> None:
    one, two = twins(introduced=False)
    commands = one.introduce(two)
    skip = {"endpoint": SetEndpoint, "selection": SelectSession, "session": InstallSession}
    one.datapath.submit(0.0, [each for each in commands if not isinstance(each, skip.get(missing, int))])
    now = FAR_FUTURE + 1 if missing == "time" else 1.0
    frame = udp_frame(one, two)
    one.datapath.from_tap(now, frame)
    output = one.take()
    assert (output.events, output.datagrams) == ([FrameWithoutSession(two.id, frame)], [])


def test_frames_that_waited_are_sent_in_order_or_dropped() -> None:
    one, two = twins()
    frames = tuple(udp_frame(one, two, bytes([number])) for number in range(3))
    one.datapath.submit(1.0, [SendFrames(two.id, frames)])
    assert carry(one, two, []) == list(frames)
    one.datapath.submit(1.0, [RemoveSession(one.index), SendFrames(two.id, frames)])
    assert one.take().events == [], "no loop between core and engine"
    assert drops(one) == {"no_session": 3}


def test_frames_made_here_reach_the_local_stack_unchecked() -> None:
    one, _ = twins()
    one.datapath.submit(1.0, [DeliverFrames((b"a", b"b"))])
    assert one.take().frames == [b"a", b"b"]


def test_frames_of_a_peer_without_membership_are_dropped() -> None:
    one, two = twins()
    two.datapath.submit(1.0, [SetPeer(one.id, Link.ETHERNET)])
    assert carry(one, two, [udp_frame(one, two), udp_frame(one, two, bytes(2000))]) == []
    assert drops(two) == {"no_membership": 3}
    assert two.datapath.learned() == {}


def test_the_source_guard_is_asked() -> None:
    one, two = twins()
    spoofed = build_ethernet(two.mac, one.mac, ETHERTYPE_IPV4, ipv4(IPv4Address("10.200.0.9"), two.vip, udp(b"x")))
    assert carry(one, two, [spoofed, udp_frame(one, two)]) == [udp_frame(one, two)]
    assert drops(two) == {"source_guard": 1}


def test_only_frames_really_delivered_are_learned() -> None:
    one, two = twins()
    carry(one, two, [build_ethernet(two.mac, one.mac, ETHERTYPE_IPV4, b"\x45")], now=1.0)
    assert two.datapath.learned() == {}
    carry(one, two, [udp_frame(one, two)], now=2.0)
    assert two.datapath.learned() == {one.mac: 2.0}


def test_partial_checksums_are_completed_behind_the_guard() -> None:
    one, two = twins()
    hostile = one.hostile()
    frame = partial(udp_frame(one, two))
    for payload in (frame, frame + b"\0", frame[:30]):
        two.datapath.from_underlay(1.0, one.endpoint, hostile.seal(bytes([PayloadKind.ETHERNET_PARTIAL]) + payload))
    assert two.take().frames == [complete_checksum(frame)]
    assert drops(two) == {"bad_payload": 2}


@pytest.mark.parametrize("size", [MAX_FRAME, MAX_FRAME + 1])
def test_the_largest_frame_is_9216_bytes_and_its_header(size: int) -> None:
    one, two = twins()
    frame = build_ethernet(two.mac, one.mac, 0x88B5, bytes(size - 14))
    assert carry(one, two, [frame]) == ([frame] if size == MAX_FRAME else [])
    hostile = one.hostile()
    hostile.advance(0, 1000)
    two.datapath.from_underlay(1.0, one.endpoint, hostile.seal(bytes([PayloadKind.ETHERNET]) + frame))
    assert two.take().frames == ([frame] if size == MAX_FRAME else [])
    assert drops(two) == ({} if size == MAX_FRAME else {"frame_too_big": 1})


# ---------------------------------------------------------------- fragments and path MTU


@pytest.mark.parametrize(
    ("mtu", "host", "overhead"), [(1280, "192.0.2.2", 28), (1280, "2001:db8::2", 48), (68, "192.0.2.2", 28)]
)
def test_datagrams_never_exceed_the_path_mtu(mtu: int, host: str, overhead: int) -> None:
    one, two = twins(mtu=mtu)
    one.datapath.submit(0.0, [SetEndpoint(two.id, Endpoint(host, 51820))])
    frame = udp_frame(one, two, bytes(range(256)) * 6)
    one.datapath.from_tap(1.0, frame)
    datagrams = [data for _, data in one.take().datagrams]
    assert max(len(data) for data in datagrams) + overhead <= max(mtu, 576)
    for data in reversed(datagrams):
        two.datapath.from_underlay(1.0, one.endpoint, data)
    assert two.take().frames == [frame]


def test_unfinished_frames_are_forgotten_and_counted() -> None:
    one, two = twins(mtu=600)
    one.datapath.from_tap(1.0, udp_frame(one, two, bytes(1000)))
    for _, data in one.take().datagrams[:-1]:
        two.datapath.from_underlay(1.0, one.endpoint, data)
    deadline = two.datapath.next_deadline()
    assert deadline == 2.0
    two.datapath.handle_timeout(deadline)
    assert two.datapath.next_deadline() is None
    assert drops(two) == {"fragment_timeout": 1}


def test_a_fragment_of_a_fragment_is_refused() -> None:
    one, two = twins()
    hostile = one.hostile()
    inner = bytes([PayloadKind.FRAGMENT, 1, 0, 0, 0, 0, 0, 1]) + b"\x01x"
    outer = bytes([PayloadKind.FRAGMENT, 1, 0, 0, 0, 0, 0, 2]) + inner
    two.datapath.from_underlay(1.0, one.endpoint, hostile.seal(outer))
    assert drops(two) == {"fragment": 1}


def send_over(narrow: int, one: Side, two: Side) -> list[int]:
    """Carry what `one` has over a path that refuses datagrams of more than `narrow` bytes; the sizes that passed."""
    passed = []
    while one.datapath.has_packets:
        packets = one.datapath.take_packets()
        for position, (_, data) in enumerate(packets.datagrams):
            if len(data) > narrow:
                one.datapath.too_big(1.0, len(data), packets.plaintexts.get(position))
            else:
                passed.append(len(data))
                two.datapath.from_underlay(1.0, one.endpoint, data)
    return passed


@pytest.mark.parametrize("size", [1380, 5000])
def test_a_datagram_too_large_for_the_path_goes_again_in_fragments(size: int) -> None:
    one, two = twins()
    frame = udp_frame(one, two, bytes(size))
    for _ in range(2):
        one.datapath.from_tap(1.0, frame)
        send_over(1240, one, two)
    assert two.take().frames == [frame, frame]
    assert drops(one) == drops(two) == {}
    refitted = one.datapath.counters()["refitted"]
    one.datapath.from_tap(1.0, frame)
    send_over(1240, one, two)
    assert one.datapath.counters()["refitted"] == refitted > 0, "the path is known to be narrow now"
    one.datapath.submit(2.0, [SetEndpoint(two.id, ELSEWHERE)])
    one.datapath.from_tap(2.0, frame)
    assert max(len(data) for _, data in one.take().datagrams) > 1240, "a new path starts anew"


def test_a_path_too_narrow_for_anything_loses_frames_and_nothing_else() -> None:
    one, two = twins()
    one.datapath.from_tap(1.0, udp_frame(one, two, bytes(1380)))
    assert send_over(100, one, two) == []
    assert drops(one)["too_big"] > 0


# ---------------------------------------------------------------- stock WireGuard peers


def routed(one: Side, two: Side) -> None:
    """`two` is a stock peer of `one`, with 10.9.0.2 behind it."""
    peer = SetPeer(two.id, Link.IP, two.mac, allowed_ips=(IPv4Network("10.9.0.2/32"),))
    one.datapath.submit(0.0, [*one.introduce(two), peer])


def test_a_stock_peer_gets_padded_packets_and_sends_them() -> None:
    one, two = twins()
    routed(one, two)
    ours, theirs = IPv4Address("10.9.0.1"), IPv4Address("10.9.0.2")
    packet = ipv4(ours, theirs, udp(b"x"))
    one.datapath.from_tap(1.0, build_ethernet(two.mac, one.mac, ETHERTYPE_IPV4, packet))
    ((endpoint, datagram),) = one.take().datagrams
    assert endpoint == two.endpoint
    assert two.hostile().open(1.0, datagram).payload == packet.ljust(32, b"\0")
    answer = ipv4(theirs, ours, udp(b"y"))
    one.datapath.from_underlay(1.0, two.endpoint, two.hostile().seal(answer.ljust(48, b"\0")))
    assert one.take().frames == [build_ethernet(one.mac, two.mac, ETHERTYPE_IPV4, answer)]
    assert one.datapath.learned() == {two.mac: 1.0}


def test_cryptokey_routing_holds_both_ways() -> None:
    one, two = twins()
    routed(one, two)
    ours, other = IPv4Address("10.9.0.1"), IPv4Address("10.9.0.3")
    one.datapath.from_tap(1.0, build_ethernet(two.mac, one.mac, ETHERTYPE_IPV4, ipv4(ours, other, udp(b"x"))))
    one.datapath.from_tap(1.0, build_ethernet(two.mac, one.mac, 0x88B5, b"x"))
    one.datapath.from_tap(1.0, build_ethernet(BROADCAST_MAC, one.mac, 0x88B5, b"x"))
    one.datapath.from_underlay(1.0, two.endpoint, two.hostile().seal(ipv4(other, ours, udp(b"y"))))
    output = one.take()
    assert (output.datagrams, output.frames) == ([], [])
    assert drops(one) == {"allowed_ips": 1, "not_ip": 1, "no_peers": 1, "source_guard": 1}


# ---------------------------------------------------------------- which link takes which kind

TAKES = {
    (Link.ETHERNET, 0x01): "frame",
    (Link.ETHERNET, 0x02): "bad_payload",
    (Link.ETHERNET, 0x03): "bad_payload",
    (Link.ETHERNET, 0x04): "control",
    (Link.SIGNALLING, 0x04): "control",
    (Link.IP, 0x45): "bad_payload",
    (Link.IP, 0x60): "bad_payload",
}


@pytest.mark.parametrize("kind", [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x45, 0x60, 0x80, 0xFF])
@pytest.mark.parametrize("link", list(Link))
def test_each_kind_of_peer_may_send_its_payload_kinds_only(link: Link, kind: int) -> None:
    one, two = twins()
    one.datapath.submit(0.0, [SetPeer(two.id, link, two.mac)])
    payload = bytes([kind])
    if kind == PayloadKind.ETHERNET:
        payload += build_ethernet(one.mac, two.mac, 0x88B5, b"x")
    one.datapath.from_underlay(1.0, two.endpoint, two.hostile().seal(payload))
    output = one.take()
    refusal = "relayed" if kind == PayloadKind.RELAYED else "payload_kind"
    expected = TAKES.get((link, kind), refusal)
    assert bool(output.frames) == (expected == "frame")
    assert any(isinstance(event, ControlReceived) for event in output.events) == (expected == "control")
    if expected not in ("frame", "control"):
        assert drops(one) == {expected: 1}
