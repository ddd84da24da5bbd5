"""An edge with peers of all three kinds, as a sequence of operations for engines under test.

`World` plays everybody around the edge: its core (commands, also senseless ones), its stack, honest and hostile peers,
and the network (replay, damage, noise). It knows the keys, so hostile plaintexts arrive sealed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from omninervous.core.dataplane import (
    Aead,
    Command,
    DeliverFrames,
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
    SetEndpoint,
    SetFlood,
    SetPeer,
)
from omninervous.core.session import AES_LIMIT, AES_REKEY, REKEY_AFTER_MESSAGES, Session
from omninervous.errors import RemoteError
from omninervous.wire.address import Endpoint
from omninervous.wire.transport import SEQUENCE_LIMIT
from tests.differential.engines import START, Operation, Skip, Step, Submit, Tap, Underlay, peer_session
from tests.differential.frames import Frames, Station, fragments

__all__ = ["World"]

US = Station(bytes([2, 0, 0, 0, 0, 1]), IPv4Address("10.200.0.1"), IPv6Address("fd6f:6d6e:6900::1"))
MEMBER = Station(bytes([2, 0, 0, 0, 0, 2]), IPv4Address("10.200.0.2"), IPv6Address("fd6f:6d6e:6900::2"))
SECOND = Station(bytes([2, 0, 0, 0, 0, 3]), IPv4Address("10.200.0.3"), IPv6Address("fd6f:6d6e:6900::3"))
STOCK = Station(bytes([2, 0, 0, 0, 0, 4]), IPv4Address("10.9.0.7"), IPv6Address("fd09::7"))
NUCLEUS = Station(bytes([2, 0, 0, 0, 0, 5]), IPv4Address("10.200.0.5"), IPv6Address("fd6f:6d6e:6900::5"))
STATIONS = [US, MEMBER, SECOND, STOCK, NUCLEUS]
PEERS = [(MEMBER, Link.ETHERNET), (SECOND, Link.ETHERNET), (STOCK, Link.IP), (NUCLEUS, Link.SIGNALLING)]
NETWORKS = (IPv4Network("10.9.0.0/24"), IPv6Network("fd09::/64"), IPv4Network("10.9.0.0/28"), IPv4Network("0.0.0.0/0"))
ENDPOINTS = [Endpoint("192.0.2.2", 51820), Endpoint("203.0.113.5", 4444), Endpoint("2001:db8::5", 4444)]
SLOW = {1: 148, 2: 92, 3: 64, 5: 64, 6: 56}


@dataclass(slots=True)
class Slot:
    """A session as the world remembers it; the edge may have forgotten or replaced it."""

    install: InstallSession
    far: Session
    lanes: list[tuple[int, Aead]]


class World:
    """`operations` grows with every call of `act`. Same dice, same operations."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._frames = Frames(dice, STATIONS)
        self._now = START
        self._slots: list[Slot] = []
        self._sent: list[bytes] = []
        self._keys = 0
        self.operations: list[Operation] = []
        for station, link in PEERS[: dice.choice((1, 2, 3, 4, 4, 4))]:
            self._introduce(station, link)
        self._submit(SetFlood(tuple(_id(station) for station, _ in PEERS)))

    def act(self) -> None:
        """One thing happens."""
        act: Callable[[], None] = self._dice.choice(
            (self._tap,) * 8
            + (self._receive,) * 12
            + (self._again, self._again, self._noise, self._step, self._step, self._control)
            + (self._command,) * 4
        )
        act()

    # ------------------------------------------------------------ the core

    def _submit(self, *commands: Command) -> None:
        self.operations.append(Submit(commands))

    def _introduce(self, station: Station, link: Link) -> None:
        self._set_peer(station, link)
        self._submit(SetEndpoint(_id(station), self._dice.choice(ENDPOINTS)))
        self._install(station)
        self._submit(SelectSession(_id(station), self._slots[-1].install.local_index))

    def _command(self) -> None:
        dice = self._dice
        station, link = dice.choice(PEERS)
        slot = dice.choice(self._slots)
        index = slot.install.local_index
        match dice.randrange(16):
            case 0:
                self._set_peer(station, link)
            case 1 if dice.randrange(4) == 0:
                self._set_peer(station, dice.choice(list(Link)))
            case 1 | 2 if dice.randrange(2):
                self._submit(RemovePeer(_id(station)))
                if dice.randrange(3):
                    self._introduce(station, link)
            case 3:
                self._submit(SetFlood(tuple(_id(each) for each, _ in PEERS if dice.randrange(2))))
            case 4 | 5 | 6:
                self._install(station, index if dice.randrange(4) == 0 else None)
                if dice.randrange(3):
                    self._submit(SelectSession(_id(station), self._slots[-1].install.local_index))
            case 7:
                self._submit(slot.install)  # again: must change nothing
            case 8 | 9:
                self._open_lanes(slot)
            case 10:
                self._submit(SelectSession(_id(station), index))
            case 11:
                self._submit(RemoveSession(index))
            case 12 | 13:
                budget = dice.choice((None, None, 0, 100, 1500, 4000))
                self._submit(SetEndpoint(_id(station), dice.choice(ENDPOINTS), budget))
            case 14:
                self._skip(slot)
            case 15:
                frames = tuple(self._frames.any(US, station) for _ in range(dice.randrange(3)))
                self._submit(
                    dice.choice(
                        (
                            SendFrames(_id(station), tuple(each for each in frames if len(each) >= 14)),
                            DeliverFrames(frames),
                            SendDatagram(dice.choice(ENDPOINTS), b"\x01" + bytes(147)),
                        )
                    )
                )

    def _set_peer(self, station: Station, link: Link) -> None:
        dice = self._dice
        self._submit(
            SetPeer(
                _id(station),
                link,
                dice.choice((station.mac,) * 7 + (None, MEMBER.mac)),
                dice.choice(((station.ipv4, station.ipv6), (station.ipv4,), (station.ipv6,), ())),
                tuple(each for each in NETWORKS if dice.randrange(2))
                if link is Link.IP or dice.randrange(4) == 0
                else (),
                dice.choice((500, 600, 1280, 1500, 1500, 9000)),
            )
        )

    def _install(self, station: Station, index: int | None = None) -> None:
        dice = self._dice
        self._keys += 1
        here, there = (random.Random(f"{way}{self._keys}").randbytes(32) for way in ("out", "in"))
        local = 0x1000 + self._keys if index is None else index
        install = InstallSession(
            _id(station), local, 0x8000 + self._keys, here, there, self._now + dice.choice((0, 1, 5, *(100,) * 9))
        )
        self._slots.append(Slot(install, peer_session(local, there, here), []))
        self._submit(install)

    def _open_lanes(self, slot: Slot) -> None:
        dice = self._dice
        ours, theirs, known = [], [], {lane for lane, _ in slot.lanes}
        for lane in sorted({dice.randrange(1, 9) for _ in range(dice.randrange(1, 3))}):
            aead = dice.choice(list(Aead))
            one, two = (random.Random(f"{way}{lane}{slot.install.send_key.hex()}").randbytes(32) for way in ("o", "i"))
            ours.append(LaneKeys(lane, aead, one, two))
            theirs.append(LaneKeys(lane, aead, two, one))
            if lane not in known:
                slot.lanes.append((lane, aead))
        lanes = [lane for lane, _ in slot.lanes]
        far = slot.far
        far.open_lanes(OpenLanes(far.local_index, tuple(theirs), tuple(lanes)))
        sending = tuple(lane for lane in [*lanes, 8] if dice.randrange(2))
        self._submit(OpenLanes(slot.install.local_index, tuple(ours), sending))

    def _skip(self, slot: Slot) -> None:
        lane, aead = self._dice.choice([(0, Aead.CHACHA20_POLY1305), *slot.lanes])
        aes = aead is Aead.AES_256_GCM
        goal = self._dice.choice(((AES_REKEY, AES_LIMIT) if aes else (REKEY_AFTER_MESSAGES, SEQUENCE_LIMIT)) + (1, 100))
        self.operations.append(Skip(slot.install.local_index, lane, max(1, goal - self._dice.randrange(3))))

    def _control(self) -> None:
        dice = self._dice
        to = dice.choice((None, *ENDPOINTS))
        payload = dice.choice((b"", b"\x04\x01", b"\x04" + bytes(1200)))
        self._submit(SendControl(dice.choice(self._slots).install.local_index, payload, to))

    # ------------------------------------------------------------ the stack, the peers, the network

    def _tap(self) -> None:
        station, _ = self._dice.choice(PEERS)
        self.operations.append(Tap(self._frames.any(US, station)))

    def _step(self) -> None:
        seconds = self._dice.choice((0.125, 0.5, 1.0, 4.0))
        self._now += seconds
        self.operations.append(Step(seconds))

    def _receive(self) -> None:
        dice = self._dice
        slot = dice.choice(self._slots[-4:] if dice.randrange(8) else self._slots)
        station, link = next((each, link) for each, link in PEERS if _id(each) == slot.install.peer)
        frame = self._frames.any(station, US)
        match dice.randrange(12):
            case 0 | 1 | 2 | 3 | 4 | 5 if link is Link.IP:
                payloads = [frame[14:] + bytes(dice.choice((0, 0, 7)))]
            case 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 if link is Link.SIGNALLING:
                payloads = [b"\x04" + frame[:100]]
            case 0 | 1 | 2 | 3:
                payloads = [b"\x01" + frame]
            case 4 | 5 | 6 | 7:
                payloads = [b"\x02" + frame]
            case 8 | 9:
                payloads = fragments(dice, bytes([dice.choice((1, 1, 2, 3, 4, 9))]) + frame)
            case 10:
                payloads = [dice.choice((b"", b"\x04", b"\x04\x01\x02", b"\x05relayed", b"\x03", bytes(20), b"\xff"))]
            case _:
                payloads = [bytes([dice.randrange(256)]) + frame]
        lane = dice.choice([0, 0, *(lane for lane, _ in slot.lanes)])
        if dice.randrange(10) == 0:
            self._jump(slot, lane)
        for payload in payloads:
            try:
                datagram = slot.far.seal(payload, lane)
            except RemoteError:
                return
            self._sent.append(datagram)
            self._arrive(datagram)

    def _jump(self, slot: Slot, lane: int) -> None:
        """The far end's counter leaps: to the window's edges, or to the end of its life."""
        aead = dict([(0, Aead.CHACHA20_POLY1305), *slot.lanes])[lane]
        limit = AES_LIMIT if aead is Aead.AES_256_GCM else SEQUENCE_LIMIT
        state = slot.far._lanes[lane]
        assert state is not None
        following = next(state.sequences)
        leap = following + self._dice.choice((1, 63, 64, 8190, 8191, 8192, 8193, 100_000))
        slot.far.advance(lane, max(following + 1, self._dice.choice((leap, leap, leap, limit - 2))))

    def _arrive(self, datagram: bytes) -> None:
        dice = self._dice
        match dice.randrange(16):
            case 0:
                changed = bytearray(datagram)
                changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
                datagram = bytes(changed)
            case 1:
                datagram = datagram[: dice.randrange(len(datagram) + 1)]
        source = dice.choice((ENDPOINTS[0], *ENDPOINTS))
        self.operations.append(Underlay(source, datagram, dice.choice((0, 0, 0, 1, 2, 3))))

    def _again(self) -> None:
        if self._sent:
            self._arrive(self._dice.choice(self._sent))

    def _noise(self) -> None:
        dice = self._dice
        kind = dice.choice((1, 2, 3, 4, 5, 6, dice.randrange(256)))
        size = SLOW.get(kind, 60) + dice.choice((0, 0, 0, 1, -1))
        start = bytes([kind, 0, 0, dice.choice((0, 0, 0, 0, 1))])
        whole = start + self._frames.content(size - 4)
        self._arrive(whole if dice.randrange(6) else whole[: dice.randrange(6)] or b"\x04")


def _id(station: Station) -> bytes:
    return station.mac[5:] * 32
