"""Two lanes behind one port: what reaches the kernel's lane, in which order, and what is put together.

The userspace engine is a real one; the kernel's lane writes down what is asked of it (tests/netns has the real one).
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Generator
from typing import Any

import pytest

from omninervous.core.dataplane import (
    Aead,
    Command,
    InstallSession,
    LaneKeys,
    Link,
    OpenLanes,
    RemovePeer,
    RemoveSession,
    SelectSession,
    SendDatagram,
    SessionExhausted,
    SetEndpoint,
    SetFlood,
    SetPeer,
    TrustCookies,
)
from omninervous.synapse.native import ActivityTuple
from omninervous.synapse.port import Synapse
from omninervous.synapse.reflex import NO_SESSION, ReflexEngine
from omninervous.wire.address import Endpoint
from tests.datapaths import FAR_FUTURE, twins, udp_frame
from tests.engines import EngineOnLoopback

PEER = bytes(31) + b"\x01"
SECRET = bytes(range(32))
MAC = bytes([2, 0, 0, 0, 0, 9])
THERE = Endpoint("127.0.0.1", 9)


class Recorder:
    """A kernel's lane without a kernel: fulfils `KernelLane`."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.room = True
        self.activities: list[ActivityTuple] = []
        self.totals: list[tuple[str, int]] = []
        self.macs: list[tuple[bytes, float]] = []
        self.waiting: list[tuple[Any, ...]] = []
        self._event, self._signal = os.pipe()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self.calls.append((name, *arguments))

    def open_lane(self, *arguments: object) -> bool:
        self.calls.append(("open_lane", *arguments))
        return self.room

    def fileno(self) -> int:
        return self._event

    def tell(self, *event: object) -> None:
        self.waiting.append(event)
        os.write(self._signal, b"!")

    def events(self) -> list[tuple[Any, ...]]:
        taken, self.waiting = self.waiting, []
        os.read(self._event, len(taken))
        return taken

    def activity(self) -> list[ActivityTuple]:
        return self.activities

    def counters(self) -> list[tuple[str, int]]:
        return self.totals

    def learned(self) -> list[tuple[bytes, float]]:
        return self.macs

    def take(self) -> list[tuple[Any, ...]]:
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def below() -> Generator[EngineOnLoopback, None, None]:
    with EngineOnLoopback(twins()[0]) as made:
        yield made


@pytest.fixture
def kernel() -> Recorder:
    return Recorder()


@pytest.fixture
def engine(below: EngineOnLoopback, kernel: Recorder) -> Generator[ReflexEngine, None, None]:
    made = ReflexEngine(below.engine, kernel)
    yield made
    made.close()


def installed(index: int) -> InstallSession:
    return InstallSession(PEER, index, index + 1, bytes([index]) * 32, bytes([index + 1]) * 32, FAR_FUTURE)


def opened(index: int, *, lanes: tuple[int, ...] = (1, 8)) -> OpenLanes:
    keys = (LaneKeys(lane, Aead.CHACHA20_POLY1305, bytes([lane]) * 32, bytes([lane + 1]) * 32) for lane in lanes)
    return OpenLanes(index, tuple(keys), ())


def agreed(index: int) -> OpenLanes:
    return OpenLanes(index, (), (1, 8))


def selected(calls: list[tuple[Any, ...]]) -> list[int]:
    return [call[2] for call in calls if call[0] == "select_session"]


def test_it_fulfils_the_port(engine: ReflexEngine) -> None:
    port: Synapse = engine
    assert port.name == "reference"


def test_the_kernel_knows_peers_sessions_and_datagrams_but_no_key_of_lane_0(
    engine: ReflexEngine, kernel: Recorder
) -> None:
    peer = SetPeer(PEER, Link.ETHERNET, MAC, (), mtu=1400)
    datagram = SendDatagram(THERE, b"\x01\0\0\0".ljust(148, b"i"))
    engine.submit([peer, SetFlood((PEER,)), SetEndpoint(PEER, THERE, 90), SetEndpoint(PEER, THERE)])
    engine.submit([installed(7), TrustCookies(SECRET, 9.0), datagram, RemoveSession(7), RemovePeer(PEER)])
    assert kernel.take() == [
        ("set_peer", PEER, MAC, [], 1400),
        ("set_endpoint", PEER, THERE, False),
        ("set_endpoint", PEER, THERE, True),
        ("install_session", PEER, 7, 8, FAR_FUTURE),
        ("trust_cookies", SECRET, 9.0),
        ("note_datagram", THERE, datagram.data),
        ("remove_session", 7),
        ("remove_peer", PEER),
    ]


def test_a_stock_peer_is_no_neighbour_of_the_kernel(engine: ReflexEngine, kernel: Recorder) -> None:
    engine.submit([SetPeer(PEER, Link.IP, MAC, (), (), 1400)])
    assert kernel.take() == [("set_peer", PEER, None, [], 1400)]


def test_lane_8_belongs_to_the_kernel_and_the_others_to_userspace(
    engine: ReflexEngine, kernel: Recorder, below: EngineOnLoopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Command] = []
    monkeypatch.setattr(below.engine, "submit", given.extend)
    engine.submit([SetPeer(PEER, Link.ETHERNET, MAC), installed(7), opened(7), agreed(7)])
    assert ("open_lane", 7, bytes([8]) * 32, bytes([9]) * 32, True) in kernel.take()
    lanes = [command for command in given if isinstance(command, OpenLanes)]
    assert [[keys.lane for keys in each.lanes] for each in lanes] == [[1], []]
    assert [each.tx for each in lanes] == [(), (1,)]


def test_the_kernel_sends_once_both_sides_have_opened_the_lane(engine: ReflexEngine, kernel: Recorder) -> None:
    engine.submit([SetPeer(PEER, Link.ETHERNET, MAC), installed(7), SelectSession(PEER, 7), opened(7)])
    assert selected(kernel.take()) == []
    engine.submit([agreed(7)])
    assert selected(kernel.take()) == [7]
    engine.submit([opened(7), agreed(7)])  # the peer's CAPS once more
    assert kernel.take() == []


def test_a_session_that_is_installed_twice_keeps_its_counters(engine: ReflexEngine, kernel: Recorder) -> None:
    engine.submit([SetPeer(PEER, Link.ETHERNET, MAC), installed(7), opened(7)])
    kernel.take()
    engine.submit([installed(7), opened(7)])
    assert kernel.take() == [], "the lane of the same keys does not begin anew"


def test_after_a_rekey_frames_stay_on_the_earlier_session_until_the_new_one_has_the_lane(
    engine: ReflexEngine, kernel: Recorder
) -> None:
    engine.submit([SetPeer(PEER, Link.ETHERNET, MAC), installed(7), SelectSession(PEER, 7), opened(7), agreed(7)])
    kernel.take()
    engine.submit([installed(9), SelectSession(PEER, 9), opened(9)])
    assert selected(kernel.take()) == []
    engine.submit([agreed(9)])
    assert selected(kernel.take()) == [9]
    engine.submit([RemoveSession(7)])
    assert kernel.take() == [("remove_session", 7)]


def test_the_peer_restarts_without_the_lane(engine: ReflexEngine, kernel: Recorder) -> None:
    engine.submit([SetPeer(PEER, Link.ETHERNET, MAC), installed(7), SelectSession(PEER, 7), opened(7), agreed(7)])
    kernel.take()
    engine.submit([installed(9), SelectSession(PEER, 9), RemoveSession(7), opened(9, lanes=(1,))])
    assert selected(kernel.take()) == [NO_SESSION], "with its session gone, the kernel sends nothing"
    engine.submit([installed(11), SelectSession(PEER, 11), opened(11), agreed(11)])
    assert selected(kernel.take()) == [11]


def test_a_peer_that_takes_the_lane_back_gets_nothing_there_on_any_session(
    engine: ReflexEngine, kernel: Recorder
) -> None:
    engine.submit([SetPeer(PEER, Link.ETHERNET, MAC), installed(7), SelectSession(PEER, 7), opened(7), agreed(7)])
    kernel.take()
    engine.submit([OpenLanes(7, (), tx=(1,))])
    assert selected(kernel.take()) == [NO_SESSION]
    engine.submit([agreed(7)])
    assert selected(kernel.take()) == [7], "and offers it again"
    engine.submit([installed(9), SelectSession(PEER, 9), opened(9, lanes=(1,)), OpenLanes(9, (), tx=(1,))])
    assert selected(kernel.take()) == [NO_SESSION], "not on the earlier session either"


def test_a_session_that_has_no_room_in_the_kernel_stays_in_userspace(engine: ReflexEngine, kernel: Recorder) -> None:
    kernel.room = False
    engine.submit([SetPeer(PEER, Link.ETHERNET, MAC), installed(7), SelectSession(PEER, 7), opened(7), agreed(7)])
    assert selected(kernel.take()) == []
    assert engine.counters()["reflex_refused"] == 1


def test_what_the_kernel_refuses_is_userspaces_alone(
    engine: ReflexEngine, kernel: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.E2BIG, "the map is full")

    monkeypatch.setattr(kernel, "set_peer", full, raising=False)
    engine.submit([SetPeer(PEER, Link.ETHERNET, MAC), installed(7), SelectSession(PEER, 7)])
    assert engine.counters()["reflex_refused"] == 1 and len(engine.activity()) == 1


def test_a_removed_peer_begins_anew(engine: ReflexEngine, kernel: Recorder) -> None:
    introduction: list[Command] = [
        SetPeer(PEER, Link.ETHERNET, MAC),
        installed(7),
        SelectSession(PEER, 7),
        opened(7),
        agreed(7),
    ]
    engine.submit([*introduction, RemovePeer(PEER)])
    kernel.take()
    engine.submit([agreed(7)])
    assert kernel.take() == []
    engine.submit(introduction)
    assert selected(kernel.take()) == [7]


def test_events_of_either_lane_make_the_descriptor_readable(
    engine: ReflexEngine, kernel: Recorder, below: EngineOnLoopback
) -> None:
    assert not select.select([engine], [], [], 0)[0]
    kernel.tell("exhausted", PEER, 7)
    assert select.select([engine], [], [], 10)[0]
    assert list(engine.events()) == [SessionExhausted(PEER, 7)]
    assert not select.select([engine], [], [], 0)[0]
    one, two = twins()
    below.stack.send(udp_frame(one, two))
    assert select.select([engine], [], [], 10)[0]
    assert len(engine.events()) == 1


def test_activity_counters_and_macs_are_those_of_both_lanes(engine: ReflexEngine, kernel: Recorder) -> None:
    engine.submit([SetPeer(PEER, Link.ETHERNET, MAC), installed(7), SelectSession(PEER, 7)])
    kernel.activities = [(PEER, 7, (5.0, 4.0, 3.0, 2.0), (40, 4000, 30, 3000)), (PEER, 99, (9.0,) * 4, (9,) * 4)]
    kernel.totals = [("rx_packets", 30), ("drop_replay", 2)]
    kernel.macs = [(MAC, 2.0)]
    (activity,) = engine.activity()
    assert (activity.tx_at, activity.rx_data_at, activity.tx_packets, activity.rx_bytes) == (5.0, 2.0, 40, 3000)
    assert engine.activity() == [], "nothing since"
    counters = engine.counters()
    assert (counters["rx_packets"], counters["drop_replay"]) == (30, 2)
    assert engine.learned() == {MAC: 2.0}


def test_closing_takes_the_programs_away_first(below: EngineOnLoopback, kernel: Recorder) -> None:
    engine = ReflexEngine(below.engine, kernel)
    engine.close()
    engine.close()
    assert [call[0] for call in kernel.take()] == ["close", "close"]
