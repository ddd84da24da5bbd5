"""Sessions in the data path: what the underlay brings, endpoints, lanes, expiry, activity."""

from __future__ import annotations

import pytest

from omninervous.core.dataplane import (
    Aead,
    Command,
    ControlReceived,
    DatagramReceived,
    FrameUnresolved,
    FrameWithoutSession,
    InstallSession,
    LaneKeys,
    Link,
    OpenLanes,
    RemovePeer,
    RemoveSession,
    SelectSession,
    SendControl,
    SendDatagram,
    SendFrames,
    SessionConfirmed,
    SessionExhausted,
    SetEndpoint,
    SetFlood,
    SetPeer,
    SourceChanged,
    UnderlayError,
)
from omninervous.core.session import REKEY_AFTER_MESSAGES
from omninervous.wire.address import Endpoint
from omninervous.wire.payload import PayloadKind
from tests.datapaths import (
    FAR_FUTURE,
    carry,
    drops,
    twins,
    udp_frame,
)

ELSEWHERE = Endpoint("203.0.113.9", 4242)
KEEPALIVE_SIZE = 32
SLOW_SIZES = {1: 148, 2: 92, 3: 64, 5: 64, 6: 56}


def control(text: bytes = b"\x01") -> bytes:
    return bytes([PayloadKind.CONTROL]) + text


# ---------------------------------------------------------------- datagrams from anywhere


@pytest.mark.parametrize(("kind", "size"), SLOW_SIZES.items())
def test_a_message_of_the_right_size_goes_to_the_core_and_no_other(kind: int, size: int) -> None:
    one, _ = twins()
    good = bytes([kind, 0, 0, 0]).ljust(size, b"x")
    for data in (good, good + b"x", good[:-1], bytes([kind, 0, 1, 0]).ljust(size, b"x")):
        one.datapath.from_underlay(1.0, ELSEWHERE, data)
    assert one.take().events == [DatagramReceived(ELSEWHERE, good)]
    assert drops(one) == {"bad_length": 2, "bad_type": 1}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "runt"),
        (b"\x04", "runt"),
        (b"\x04\0\0\0" + bytes(27), "runt"),
        (b"\x04\0\0\0" + bytes(28), "unknown_session"),
        (b"\x04\0\0\1" + bytes(28), "bad_type"),
        (b"\x07\0\0\0" + bytes(28), "bad_type"),
        (b"\x00\0\0\0", "bad_type"),
    ],
)
def test_noise_is_dropped_by_name(data: bytes, reason: str) -> None:
    one, _ = twins()
    one.datapath.from_underlay(1.0, ELSEWHERE, data)
    output = one.take()
    assert (output.datagrams, output.frames, output.events) == ([], [], [])
    assert drops(one) == {reason: 1}


def test_replays_and_forgeries_are_dropped() -> None:
    one, two = twins()
    one.datapath.from_tap(1.0, udp_frame(one, two))
    ((_, data),) = one.take().datagrams
    forged = data[:-1] + bytes([data[-1] ^ 1])
    for each in (forged, data, data):
        two.datapath.from_underlay(1.0, one.endpoint, each)
    assert len(two.take().frames) == 1
    assert drops(two) == {"bad_tag": 1, "replay": 1}


def test_the_first_authenticated_packet_confirms_the_session_before_it_says_anything() -> None:
    one, two = twins()
    hostile = two.hostile()
    for payload in (control(), b"", control()):
        one.datapath.from_underlay(1.0, two.endpoint, hostile.seal(payload))
    assert one.take().events == [
        SessionConfirmed(two.id, one.index, two.endpoint),
        ControlReceived(two.id, one.index, control(), two.endpoint, KEEPALIVE_SIZE + 2),
        ControlReceived(two.id, one.index, control(), two.endpoint, KEEPALIVE_SIZE + 2),
    ]


# ---------------------------------------------------------------- endpoints


def test_only_the_newest_packet_from_elsewhere_tells_a_new_source() -> None:
    one, two = twins()
    hostile = two.hostile()
    older, newer = hostile.seal(b""), hostile.seal(b"")
    one.datapath.from_underlay(1.0, two.endpoint, newer)
    one.take()
    one.datapath.from_underlay(1.0, ELSEWHERE, older)
    assert one.take().events == []
    one.datapath.from_underlay(1.0, ELSEWHERE, hostile.seal(b""))
    assert one.take().events == [SourceChanged(two.id, one.index, ELSEWHERE, KEEPALIVE_SIZE)]
    one.datapath.from_tap(1.0, udp_frame(one, two))
    assert one.take().datagrams[0][0] == two.endpoint, "the core decides whether the endpoint moves"


def test_an_unproven_endpoint_gets_no_more_than_its_budget() -> None:
    one, two = twins()
    frame = udp_frame(one, two)
    size = len(frame) + 1 + KEEPALIVE_SIZE
    one.datapath.submit(1.0, [SetEndpoint(two.id, ELSEWHERE, budget=size + KEEPALIVE_SIZE + 1)])
    challenge = SendControl(one.index, b"", ELSEWHERE)
    one.datapath.from_tap(1.0, frame)
    one.datapath.from_tap(1.0, frame)
    one.datapath.submit(1.0, [challenge, challenge])
    assert [len(data) for _, data in one.take().datagrams] == [size, KEEPALIVE_SIZE]
    assert drops(one) == {"reflection_budget": 2}
    one.datapath.submit(1.0, [SendControl(one.index, b"", two.endpoint), SetEndpoint(two.id, ELSEWHERE)])
    one.datapath.from_tap(1.0, frame)
    assert [endpoint for endpoint, _ in one.take().datagrams] == [two.endpoint, ELSEWHERE]


def test_errors_of_the_underlay_are_told_once_a_second() -> None:
    one, two = twins()
    for _ in range(3):
        one.datapath.link_error(1.0, "underlay_error", two.endpoint, 101)
    assert one.take().events == [UnderlayError(two.endpoint, 101)]
    assert drops(one) == {"underlay_error": 3}


# ---------------------------------------------------------------- commands about sessions


def test_datagrams_and_control_are_sent_where_the_core_says() -> None:
    one, two = twins()
    one.datapath.submit(
        1.0,
        [
            SendDatagram(ELSEWHERE, b"initiation"),
            SendControl(one.index, control()),
            SendControl(one.index, b"", ELSEWHERE),
        ],
    )
    (first, second, third) = one.take().datagrams
    assert first == (ELSEWHERE, b"initiation")
    assert (second[0], two.hostile().open(1.0, second[1]).payload) == (two.endpoint, control())
    assert (third[0], len(third[1])) == (ELSEWHERE, KEEPALIVE_SIZE)


def test_control_may_leave_on_a_session_that_is_not_selected() -> None:
    one, two = twins()
    other = InstallSession(two.id, 77, 88, bytes(32), bytes(32), FAR_FUTURE)
    one.datapath.submit(1.0, [other, SendControl(77, control())])
    ((_, data),) = one.take().datagrams
    assert int.from_bytes(data[4:8], "little") == 88
    one.datapath.from_tap(1.0, udp_frame(one, two))
    ((_, data),) = one.take().datagrams
    assert int.from_bytes(data[4:8], "little") == two.index


def test_commands_about_unknown_peers_and_sessions_are_ignored() -> None:
    one, two = twins(introduced=False)
    commands: list[Command] = [
        RemovePeer(two.id),
        SetFlood((two.id,)),
        InstallSession(two.id, 1, 2, bytes(32), bytes(32), FAR_FUTURE),
        OpenLanes(1, (), ()),
        SelectSession(two.id, 1),
        RemoveSession(1),
        SetEndpoint(two.id, ELSEWHERE),
        SendControl(1, b""),
        SendFrames(two.id, (b"",)),
    ]
    one.datapath.submit(1.0, commands)
    output = one.take()
    assert (output.datagrams, output.frames, output.events) == ([], [], [])
    assert list(one.datapath.activity()) == []


def test_an_expired_session_neither_sends_nor_receives() -> None:
    one, two = twins()
    late = FAR_FUTURE + 1
    one.datapath.submit(late, [SendControl(one.index, b"")])
    one.datapath.from_underlay(late, two.endpoint, two.hostile().seal(b""))
    assert one.take().datagrams == []
    assert drops(one) == {"expired": 2}


def test_removing_a_session_or_its_peer_ends_it_in_both_directions() -> None:
    for removal in (RemoveSession(0x1001), RemovePeer(b"\x02" * 32)):
        one, two = twins()
        one.datapath.submit(1.0, [removal])
        one.datapath.from_underlay(1.0, two.endpoint, two.hostile().seal(b""))
        one.datapath.from_tap(1.0, udp_frame(one, two))
        assert one.take().datagrams == []
        assert drops(one) == {"unknown_session": 1}
        assert list(one.datapath.activity()) == []


def test_wiping_forgets_everything_but_the_counters() -> None:
    one, two = twins()
    carry(one, two, [udp_frame(one, two)])
    one.datapath.from_tap(1.0, udp_frame(one, two))
    one.datapath.wipe()
    one.datapath.from_underlay(1.0, two.endpoint, two.hostile().seal(b""))
    output = one.take()
    assert (output.datagrams, output.frames, output.events) == ([], [], [])
    assert one.datapath.counters()["tx_packets"] == 2


def test_who_has_a_mac_keeps_it_until_removed() -> None:
    one, two = twins()
    forger = b"\x09" * 32
    one.datapath.submit(1.0, [SetPeer(forger, Link.ETHERNET, two.mac), SetEndpoint(forger, ELSEWHERE)])
    one.datapath.from_tap(1.0, udp_frame(one, two))
    assert one.take().datagrams[0][0] == two.endpoint
    one.datapath.submit(1.0, [RemovePeer(two.id)])
    one.datapath.from_tap(1.0, udp_frame(one, two))
    assert one.take().events == [FrameWithoutSession(forger, udp_frame(one, two))]


def test_a_peer_whose_mac_changes_leaves_no_trace_of_the_old_one() -> None:
    one, two = twins()
    one.datapath.submit(1.0, [SetPeer(two.id, Link.ETHERNET)])
    one.datapath.from_tap(1.0, udp_frame(one, two))
    assert one.take().events == [FrameUnresolved(udp_frame(one, two))]


# ---------------------------------------------------------------- lanes, counters, activity


@pytest.mark.parametrize("aead", list(Aead))
def test_frames_leave_on_the_lane_that_the_core_opened_and_control_on_lane_0(aead: Aead) -> None:
    one, two = twins()
    forth, back = bytes([5]) * 32, bytes([6]) * 32
    one.datapath.submit(1.0, [OpenLanes(one.index, (LaneKeys(3, aead, forth, back),), tx=(3,))])
    one.datapath.from_tap(1.0, udp_frame(one, two))
    one.datapath.submit(1.0, [SendControl(one.index, control())])
    lanes = [data[15] >> 4 for _, data in one.take().datagrams]
    assert lanes == [3, 0]
    assert carry(one, two, [udp_frame(one, two)]) == []
    assert drops(two) == {"lane": 1}
    two.datapath.submit(1.0, [OpenLanes(two.index, (LaneKeys(3, aead, back, forth),), tx=())])
    assert carry(one, two, [udp_frame(one, two)]) == [udp_frame(one, two)]
    assert carry(two, one, [udp_frame(two, one)]) == [udp_frame(two, one)], "receiving does not mean sending"


def test_control_is_taken_on_lane_0_only() -> None:
    one, two = twins()
    keys = LaneKeys(8, Aead.CHACHA20_POLY1305, bytes([5]) * 32, bytes([6]) * 32)
    one.datapath.submit(1.0, [OpenLanes(one.index, (LaneKeys(8, keys.aead, keys.recv_key, keys.send_key),), ())])
    hostile = two.hostile()
    hostile.open_lanes(OpenLanes(two.index, (keys,), (8,)))
    one.datapath.from_underlay(1.0, two.endpoint, hostile.seal(control(), 8))
    assert drops(one) == {"payload_kind": 1}


def test_exhaustion_is_told_once() -> None:
    one, two = twins()
    entry = one.datapath._table.sessions[one.index]
    entry.session.advance(0, REKEY_AFTER_MESSAGES)
    for _ in range(2):
        one.datapath.from_tap(1.0, udp_frame(one, two))
    assert one.take().events == [SessionExhausted(two.id, one.index)]


def test_activity_tells_data_from_keepalives_and_control() -> None:
    one, two = twins()
    one.datapath.submit(2.0, [SendControl(one.index, b"")])
    one.datapath.submit(3.0, [SendControl(one.index, control())])
    for _, data in one.take().datagrams:
        two.datapath.from_underlay(4.0, one.endpoint, data)
    (sent,), (received,) = one.datapath.activity(), two.datapath.activity()
    assert (sent.tx_at, sent.tx_data_at, sent.tx_packets, sent.tx_bytes) == (3.0, 0.0, 2, 2 * KEEPALIVE_SIZE + 2)
    assert (received.rx_at, received.rx_data_at, received.rx_packets) == (4.0, 0.0, 2)
    carry(one, two, [udp_frame(one, two)], now=5.0)
    (sent,), (received,) = one.datapath.activity(), two.datapath.activity()
    assert (sent.tx_data_at, received.rx_data_at) == (5.0, 5.0)
    counters = two.datapath.counters()
    assert (counters["rx_packets"], counters["rx_bytes"]) == (received.rx_packets, received.rx_bytes)


def test_no_key_shows_in_any_representation() -> None:
    one, two = twins()
    spec = one.introduce(two)[2]
    assert one.send_key.hex() not in repr(spec)
    assert repr(one.send_key) not in repr(spec)
    assert repr(one.send_key) not in repr(one.datapath._table.sessions[one.index].session)


def test_a_session_installed_again_goes_on_and_its_counters_never_start_again() -> None:
    one, two = twins()
    again = InstallSession(two.id, one.index, two.index, one.send_key, one.recv_key, FAR_FUTURE)
    sent = []
    for install in (None, again, again):
        if install:
            one.datapath.submit(1.0, [install])
        assert carry(one, two, [udp_frame(one, two)]) == [udp_frame(one, two)]
        sent.append(one.taken.datagrams[0][1][:16])
    assert len(set(sent)) == 3
    one.datapath.submit(1.0, [InstallSession(bytes(32), one.index, 9, bytes(32), bytes(32), FAR_FUTURE)])
    assert carry(one, two, [udp_frame(one, two)]), "a session of an unknown peer replaces none"
