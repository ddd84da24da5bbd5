"""One peer's machine, with a partner that the test plays through real handshakes."""

from __future__ import annotations

import pytest

from omninervous.core.context import ClaimSeen, Forgotten, MembershipSeen, PeerLost, QueryWanted
from omninervous.core.dataplane import (
    InstallSession,
    RemovePeer,
    RemoveSession,
    SendControl,
    SendDatagram,
    SendFrames,
    SessionActivity,
    SetPeer,
)
from omninervous.core.events import PeerDown, PeerUp
from omninervous.core.handshakes import Handshakes
from omninervous.core.noise import ZERO_PSK
from omninervous.core.own import OwnAddress
from omninervous.core.peer import ACTIVITY, Peer
from omninervous.core.profile import Kind, PeerProfile
from omninervous.errors import RemoteError
from omninervous.wire.address import Endpoint
from omninervous.wire.control import Caps, Close, CloseReason, PathChallenge, PathResponse, Versions, decode_control
from tests.nodes import X, Y, Z, at, commands, context, events, identity, membership

OWN = identity("own")
PARTNER = identity("partner")
KEY = PARTNER.x25519_public


class Meeting:
    """`peer` is ours; `theirs` answers for it."""

    def __init__(self, kind: Kind = Kind.PAIR, name: str = "own") -> None:
        self.ctx = context(name)
        self.handshakes = Handshakes(self.ctx)
        self.own = OwnAddress(self.ctx)
        known = None if kind is Kind.WIREGUARD else PARTNER.public
        self.peer = Peer(self.ctx, self.handshakes, self.own, PeerProfile(KEY, kind, identity=known, endpoint=X))
        self.theirs = Handshakes(context("partner"))

    def up(self, now: float = 1.0) -> Meeting:
        """We connect, it answers, our path is proven, its CAPS are here."""
        self.peer.connect(at(now))
        self.answer(now)
        if self.peer.link.value == "ethernet":
            self.caps(now)
            self.be_there(now)
        self.ctx.commands.clear()
        self.ctx.events.clear()
        self.ctx.signals.clear()
        return self

    def answer(self, now: float) -> None:
        initiation = commands(self.ctx, SendDatagram)[-1].data
        incoming = self.theirs.open(at(now), Y, initiation)
        assert incoming is not None
        self.theirs.respond(at(now), Y, initiation, incoming, ZERO_PSK)
        self.theirs.answer(at(now), initiation)
        response = commands(self.theirs._ctx, SendDatagram)[0].data
        self.peer.handle_established(at(now), X, self.handshakes.handle_response(at(now), response))

    def be_there(self, now: float) -> None:
        """Answer all challenges."""
        for command in commands(self.ctx, SendControl):
            message = decode_control(command.payload) if command.payload else None
            if isinstance(message, PathChallenge):
                self.control(now, PathResponse(message.token))

    def caps(self, now: float, boot: bytes = bytes(16), **fields: object) -> None:
        theirs = OwnAddress(context("partner"))
        caps = theirs.caps(at(now), bytes(8), member=self.peer.profile.kind is Kind.MEMBER)
        changed: dict[str, object] = {
            **{name: getattr(caps, name) for name in Caps.__slots__},
            "boot_id": boot,
            **fields,
        }
        self.control(now, Caps(**changed))  # type: ignore[arg-type]

    def control(self, now: float, message: Caps | Close | PathChallenge | PathResponse) -> None:
        index = self.peer.current_index
        assert index is not None
        self.peer.handle_control(at(now), index, message, X, 100)

    def initiated(self, now: float) -> None:
        """The partner wants a session: we answer."""
        self.theirs.begin(at(now), OWN.x25519_public, ZERO_PSK, (Y,))
        initiation = commands(self.theirs._ctx, SendDatagram)[-1].data
        incoming = self.handshakes.open(at(now), X, initiation)
        assert incoming is not None
        self.peer.handle_initiation(at(now), X, initiation, incoming)

    def active(self, **times: float) -> None:
        index = self.peer.current_index
        assert index is not None
        fields = {"tx_at": 0.0, "tx_data_at": 0.0, "rx_at": 0.0, "rx_data_at": 0.0, **times}
        self.peer.handle_activity(
            at(max(fields.values())),
            SessionActivity(KEY, index, **fields, tx_packets=1, tx_bytes=9, rx_packets=1, rx_bytes=9),
        )

    def ticks(self, start: float, end: float) -> None:
        now = start
        while now <= end:
            self.peer.handle_timeout(at(now))
            now += 1.0

    def looks(self, after: float, until: float) -> list[float]:
        """When the peer's own timer is due, up to `until`."""
        times: list[float] = []
        while (due := self.ctx.timers.next()) is not None and due <= at(until).boot:
            if ("peer", KEY) in self.ctx.timers.pop_due(due):
                self.peer.handle_timeout(at(max(due, after)))
                times.append(max(due, after))
        return times

    def keepalives(self) -> int:
        return sum(command.payload == b"" for command in commands(self.ctx, SendControl))


def test_a_first_session_is_news_and_its_renewal_is_not() -> None:
    meeting = Meeting()
    meeting.peer.connect(at(1.0))
    meeting.answer(1.0)
    assert [up.initiator for up in events(meeting.ctx, PeerUp)] == [True]
    meeting.peer.connect(at(100.0))
    meeting.answer(100.0)
    assert not events(meeting.ctx, PeerUp) and len(meeting.peer.sessions.confirmed) == 2


def test_attempts_end_after_ninety_seconds_and_begin_again_if_wanted() -> None:
    meeting = Meeting(Kind.MEMBER)
    meeting.peer.want(at(1.0), wanted=True)
    meeting.peer.stage(at(1.0), b"frame")
    wishes: list[QueryWanted] = []
    now, attempts = 1.0, 0
    while PeerLost(KEY, "timeout") not in meeting.ctx.signals:
        deadline = meeting.ctx.timers.next()
        assert deadline is not None and deadline > now
        now = deadline
        for machine, _ in meeting.ctx.timers.pop_due(now):
            if machine == "peer":
                attempts += 1
                meeting.peer.handle_timeout(at(now))
    wishes = [signal for signal in meeting.ctx.signals if isinstance(signal, QueryWanted)]
    assert 85.0 < now - 1.0 < 100.0 and attempts >= 17
    assert [wish.ask_to_initiate for wish in wishes[:4]] == [False, False, True, True]
    assert meeting.ctx.drops["unreachable"] == 1, "the frame that waited"
    later = meeting.ctx.timers.next()
    assert later is not None and 25.0 <= later - now <= 30.0


def test_a_renewal_asks_nobody_and_goes_to_the_proven_endpoint_only() -> None:
    meeting = Meeting(Kind.MEMBER).up()
    meeting.peer.set_candidates(at(2.0), (Y, Z))
    meeting.active(tx_at=125.0, rx_at=125.0)
    meeting.peer.handle_timeout(at(126.0))
    assert [command.endpoint for command in commands(meeting.ctx, SendDatagram)] == [X]
    assert not meeting.ctx.signals


def test_the_side_that_began_renews_at_120_seconds_but_a_stock_peer_only_if_the_link_is_used() -> None:
    used, idle = Meeting(Kind.WIREGUARD).up(), Meeting(Kind.WIREGUARD).up()
    used.active(tx_at=121.5, rx_at=121.0)
    idle.active(tx_at=119.0, rx_at=119.0)
    for meeting in (used, idle):
        meeting.peer.handle_timeout(at(122.0))
    assert used.peer.connecting and not idle.peer.connecting
    kept = Meeting().up()
    kept.peer.handle_timeout(at(122.0))
    assert kept.peer.connecting


def test_a_silent_peer_is_looked_for_everywhere() -> None:
    meeting = Meeting(Kind.MEMBER).up()
    meeting.peer.set_candidates(at(2.0), (Y, Z))
    meeting.active(tx_at=10.0, tx_data_at=10.0, rx_at=9.0)
    meeting.ticks(10.0, 13.0)
    assert {command.endpoint for command in commands(meeting.ctx, SendDatagram)} == {X, Y, Z}
    assert meeting.ctx.signals == [QueryWanted(KEY, ask_to_initiate=False)]


def test_frames_leave_when_the_path_is_proven() -> None:
    meeting = Meeting()
    meeting.peer.stage(at(1.0), b"one")
    meeting.peer.stage(at(1.1), b"two")
    meeting.answer(1.2)
    assert commands(meeting.ctx, SendFrames) == [SendFrames(KEY, (b"one", b"two"))]


def test_a_pairs_policy_waits_for_its_identity() -> None:
    meeting = Meeting()
    meeting.peer.set_policy(None)
    meeting.peer.connect(at(1.0))
    assert [command.mac for command in commands(meeting.ctx, SetPeer)] == [None]
    meeting.peer.connect(at(1.0))
    meeting.handshakes.begin(at(1.0), KEY, ZERO_PSK, (X,))
    meeting.answer(1.0)
    meeting.ctx.signals.clear()
    with pytest.raises(RemoteError, match="caps_identity"):
        meeting.caps(1.0, identity=identity("somebody").public)
    assert not meeting.ctx.signals
    meeting.caps(1.0)
    assert meeting.ctx.signals == [ClaimSeen(KEY, PARTNER.public, None)]


def test_a_members_caps_bring_its_membership() -> None:
    meeting = Meeting(Kind.MEMBER).up()
    raw = membership("partner", serial=9)
    meeting.caps(2.0, membership=raw)
    assert meeting.ctx.signals == [MembershipSeen(KEY, raw)]


def test_versions_without_overlap_are_a_problem() -> None:
    meeting = Meeting().up()
    with pytest.raises(RemoteError, match="version"):
        meeting.caps(2.0, versions=Versions(7, 9))
    assert [code for code, _ in meeting.ctx.problems] == ["version"]


def test_a_challenge_is_answered_to_where_it_came_from() -> None:
    meeting = Meeting().up()
    index = meeting.peer.current_index
    assert index is not None
    meeting.peer.handle_control(at(2.0), index, PathChallenge(b"12345678"), Z, 45)
    answer, back = commands(meeting.ctx, SendControl)
    assert back.endpoint == Z and isinstance(decode_control(back.payload), PathChallenge), "does it lead there, too?"
    assert answer.endpoint == Z and decode_control(answer.payload) == PathResponse(b"12345678", Z)


def test_the_engine_has_a_session_before_its_peer_can_use_it() -> None:
    meeting = Meeting()
    meeting.initiated(1.0)
    kinds = [type(command) for command in meeting.ctx.commands]
    assert kinds.index(InstallSession) < kinds.index(SendDatagram), "else the peer's first packet is dropped"


def test_goodbye_is_said_on_sessions_that_only_the_peer_takes_for_usable() -> None:
    meeting = Meeting()
    meeting.initiated(1.0)
    (installed,) = commands(meeting.ctx, InstallSession)
    meeting.peer.close(CloseReason.SHUTDOWN)
    closed = SendControl(installed.local_index, Close(CloseReason.SHUTDOWN).encode())
    removed = RemoveSession(installed.local_index)
    assert [command for command in meeting.ctx.commands if command in (closed, removed)] == [closed, removed]


def test_a_close_ends_it_until_somebody_wants_it() -> None:
    meeting = Meeting()
    meeting.peer.want(at(1.0), wanted=True)
    meeting.answer(1.0)
    meeting.control(2.0, Close(CloseReason.SHUTDOWN))
    assert [down.reason for down in events(meeting.ctx, PeerDown)] == ["closed"]
    meeting.peer.want(at(3.0), wanted=True)
    assert not meeting.peer.connecting and meeting.ctx.timers.pop_due(at(3600.0).boot) == [ACTIVITY]
    meeting.peer.stage(at(4.0), b"frame")
    assert meeting.peer.connecting


def test_keys_go_at_180_seconds() -> None:
    meeting = Meeting(Kind.WIREGUARD).up()
    index = meeting.peer.current_index
    assert index is not None
    meeting.ticks(2.0, 180.5)
    assert RemoveSession(index) not in meeting.ctx.commands
    meeting.peer.handle_timeout(at(181.0))
    assert RemoveSession(index) in meeting.ctx.commands and not meeting.peer.up


def test_an_hour_without_data_is_enough_unless_the_peer_is_wanted() -> None:
    for wanted in (False, True):
        meeting = Meeting().up()
        meeting.peer.wanted = wanted
        for hour in (0.0, 3599.0):
            meeting.peer.connect(at(2.0 + hour))
            meeting.handshakes.begin(at(2.0 + hour), KEY, ZERO_PSK, (X,))
            meeting.answer(2.0 + hour)
        meeting.peer.liveness.data_at = 2.0
        meeting.ctx.signals.clear()
        meeting.peer.handle_timeout(at(3602.0))
        assert (Forgotten(KEY) in meeting.ctx.signals) is not wanted


def test_a_stock_peer_gets_an_empty_packet_to_confirm_and_no_control() -> None:
    meeting = Meeting(Kind.WIREGUARD)
    meeting.peer.connect(at(1.0))
    meeting.answer(1.0)
    assert [command.payload for command in commands(meeting.ctx, SendControl)] == [b""]
    meeting.ticks(2.0, 60.0)
    assert meeting.keepalives() == 0, "a stock peer's link is not kept open"


def test_an_idle_edge_is_asked_whether_it_is_there_and_looked_for_if_not() -> None:
    meeting = Meeting().up()

    def asked(since: float, until: float) -> list[PathChallenge]:
        meeting.ticks(since, until)
        sent = [decode_control(command.payload) for command in commands(meeting.ctx, SendControl)]
        return [message for message in sent if isinstance(message, PathChallenge)]

    assert not asked(2.0, 23.0)
    challenges = asked(24.0, 27.0)
    assert challenges and all(each.in_use for each in challenges)
    meeting.ticks(28.0, 30.0)
    assert meeting.peer.connecting and meeting.ctx.counters["paths_lost"] == 1


def test_a_punch_opens_the_nat_and_calls_unless_there_is_a_session() -> None:
    meeting = Meeting(Kind.MEMBER)
    meeting.peer.punch(at(1.0), (Y,), ask_to_initiate=False)
    assert meeting.ctx.timers.next() == 1.1 and not meeting.peer.connecting
    meeting.peer.handle_timeout(at(1.1))
    assert meeting.peer.connecting
    up = Meeting(Kind.MEMBER).up()
    up.peer.set_candidates(at(2.0), (Y,))
    up.ctx.commands.clear()
    up.peer.handle_timeout(at(4.0))
    up.peer.punch(at(4.0), (Y,), ask_to_initiate=False)
    challenges = [command for command in commands(up.ctx, SendControl) if command.payload[:2] == b"\x04\x03"]
    assert [challenge.endpoint for challenge in challenges] == [Y]
    assert not up.peer.connecting
    up.peer.punch(at(2.0), (Y,), ask_to_initiate=True)
    assert up.peer.connecting, "it asked for it: it has lost the session"


def test_a_removed_peer_leaves_nothing() -> None:
    meeting = Meeting().up()
    meeting.peer.remove()
    assert meeting.ctx.commands[-1] == RemovePeer(KEY) and meeting.ctx.timers.pop_due(at(3600.0).boot) == [ACTIVITY]
    assert not meeting.ctx.endpoints and not meeting.handshakes._owners


def test_a_quiet_peer_is_looked_at_seldom_and_one_with_data_at_once() -> None:
    meeting = Meeting().up()
    meeting.looks(1.0, 10.0)
    assert meeting.looks(10.0, 22.0) == [15.0, 20.0]
    meeting.active(rx_at=22.4)  # which is no data
    assert meeting.looks(22.4, 26.0) == [25.0]
    meeting.active(rx_at=26.4, rx_data_at=26.4)
    looks = meeting.looks(26.4, 30.0)
    assert looks[0] == 26.4 and {27.0, 28.0, 29.0, 30.0} <= set(looks)


def test_a_quiet_peer_is_told_at_once_of_a_change_and_again_until_it_says_that_it_knows() -> None:
    meeting = Meeting().up()
    meeting.looks(1.0, 12.0)
    meeting.ctx.commands.clear()
    meeting.peer.offer_caps(at(12.5))
    assert meeting.looks(12.5, 14.0) == [13.0, 14.0]
    sent = [decode_control(each.payload) for each in commands(meeting.ctx, SendControl) if each.payload]
    assert sum(isinstance(message, Caps) for message in sent) == 2


def test_a_keepalive_comes_when_it_is_due_whatever_the_quiet() -> None:
    meeting = Meeting().up()
    meeting.looks(1.0, 20.0)
    due = meeting.peer.upkeep.keepalive_at
    (look,) = [each for each in meeting.looks(20.0, 29.0) if each not in (20.0, 25.0)][:1]
    assert due <= look < due + 1.0
    sent = [decode_control(each.payload) for each in commands(meeting.ctx, SendControl) if each.payload]
    assert isinstance(sent[-1], PathChallenge)


def test_a_peer_has_one_voice_about_where_we_are() -> None:
    ctx = context()
    nucleus, liar = bytes([1]) * 32, bytes([2]) * 32
    ctx.nuclei[nucleus] = "n"
    ctx.note_view(nucleus, X, Endpoint("203.0.113.5", 40_000))
    for number, port in enumerate((40_001, 40_002, 40_003)):
        ctx.note_view(liar, Endpoint("192.0.2.66", number + 1), Endpoint("203.0.113.5", port))
    assert [each.port for each in ctx.outside] == [40_000, 40_003] and ctx.counting, "as any two"
    for number in range(3):
        honest = bytes([10 + number]) * 32
        ctx.note_view(honest, Endpoint("192.0.2.70", number + 1), Endpoint("203.0.113.5", 40_000))
    assert not ctx.counting and [each.port for each in ctx.outside] == [40_003]
