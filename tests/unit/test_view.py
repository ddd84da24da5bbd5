"""One Nucleus seen from an edge, with a scripted Nucleus: also one that lies."""

from __future__ import annotations

from typing import TypeVar

import pytest

from omninervous.core.context import AddressGranted, AddressTaken, AskAgain, CloneFound, MemberChanged, PunchWanted
from omninervous.core.dataplane import SendControl, SendDatagram
from omninervous.core.events import NucleusConfig, NucleusDown, NucleusPinned, NucleusUp, SecretMismatchHint
from omninervous.core.handshakes import Handshakes
from omninervous.core.noise import ZERO_PSK
from omninervous.core.own import OwnAddress
from omninervous.core.queries import Target
from omninervous.core.roster import Known, Roster
from omninervous.core.view import View, ViewState
from omninervous.errors import RemoteError
from omninervous.wire.address import Endpoint
from omninervous.wire.hello import HelloReply, decode_hello
from omninervous.wire.membership import VipClaim
from omninervous.wire.signalling import (
    Heartbeat,
    HeartbeatAck,
    HeartbeatStatus,
    Leave,
    PeerEntry,
    PeerInfo,
    PeerStatus,
    Probe,
    QueryPeer,
    Register,
    RegisterAck,
    RegisterStatus,
    SignallingMessage,
    decode_signalling,
)
from tests.nodes import X, Y, Z, at, cluster, commands, context, events, identity, membership

NAME = "nucleus.example:51820"
NUCLEUS = identity("nucleus")
M = TypeVar("M")


class Script:
    """A view, and the Nucleus that the test plays."""

    def __init__(self, key: bytes | None = None) -> None:
        self.now = 1.0
        self.ctx = context("edge")
        self.own = OwnAddress(self.ctx)
        self.roster = Roster(self.ctx.identity.x25519_public, cluster().public, 100)
        self.handshakes = Handshakes(self.ctx)
        self.view = View(self.ctx, self.handshakes, self.own, NucleusConfig(NAME, key), self._learn)
        self.nucleus = Handshakes(context("nucleus"))

    def _learn(self, entry: PeerEntry) -> Known | None:
        try:
            return self.roster.learn_entry(at(self.now), entry)
        except RemoteError:
            return None

    def contact(self) -> None:
        self.view.set_endpoints(at(self.now), (X,))

    def hello(self, shown: bytes) -> None:
        (hello,) = commands(self.ctx, SendDatagram)
        reply = HelloReply(decode_hello(hello.data).nonce, shown)
        self.view.handle_hello_reply(at(self.now), reply.encode())

    def shake_hands(self) -> None:
        initiation = commands(self.ctx, SendDatagram)[-1].data
        incoming = self.nucleus.open(at(self.now), Y, initiation)
        assert incoming is not None
        self.nucleus.respond(at(self.now), Y, initiation, incoming, ZERO_PSK)
        self.nucleus.answer(at(self.now), initiation)
        (response,) = commands(self.nucleus._ctx, SendDatagram)
        established = self.handshakes.handle_response(at(self.now), response.data)
        assert self.view.peer is not None
        self.view.peer.handle_established(at(self.now), X, established)
        self.ctx.signals.clear()
        self.view.handle_available(at(self.now))

    def registered(self) -> Script:
        self.contact()
        self.hello(NUCLEUS.public)
        self.shake_hands()
        self.answer(RegisterAck(self.sent(Register).request, RegisterStatus.OK, epoch=5, version=7))
        self.ctx.signals.clear()
        return self

    def all_sent(self) -> list[SignallingMessage]:
        decoded = [decode_signalling(command.payload) for command in commands(self.ctx, SendControl) if command.payload]
        return [message for message in decoded if message is not None]

    def sent(self, kind: type[M]) -> M:
        """The one message of a kind; repetitions count once."""
        (message,) = {message for message in self.all_sent() if isinstance(message, kind)}
        return message

    def answer(self, message: RegisterAck | HeartbeatAck | PeerInfo | Probe) -> None:
        self.view.handle_control(at(self.now), message.encode())

    def wait(self, seconds: float) -> None:
        """Let timers run, as a Node would."""
        end = self.now + seconds
        while (due := self.ctx.timers.next()) is not None and due <= end:
            self.now = max(self.now, due)
            for machine, _ in self.ctx.timers.pop_due(self.now):
                if machine == "view":
                    self.view.handle_timeout(at(self.now))
        self.now = end


def test_an_unknown_nucleus_is_asked_pinned_and_registered_with() -> None:
    script = Script()
    script.contact()
    script.hello(NUCLEUS.public)
    assert not events(script.ctx, NucleusPinned), "a claim so far"
    script.shake_hands()
    assert [event.identity for event in events(script.ctx, NucleusPinned)] == [NUCLEUS.public]
    register = script.sent(Register)
    assert register.cluster_public == cluster().public and register.membership == script.own.membership(at(1.0))
    script.answer(RegisterAck(register.request, RegisterStatus.OK, epoch=5, version=7, observed=Z))
    assert script.view.registered and script.ctx.signals == [AddressGranted(NAME)]
    assert [event.endpoint for event in events(script.ctx, NucleusUp)] == [X]
    status = script.view.status()
    assert status.observed == Z and status.state == "up" and status.hint == ""


def test_a_hello_reply_needs_our_nonce() -> None:
    script = Script()
    script.contact()
    with pytest.raises(RemoteError, match="unknown_hello"):
        script.view.handle_hello_reply(at(1.0), HelloReply(bytes(16), NUCLEUS.public).encode())


def test_an_unproven_key_is_forgotten_when_its_handshake_fails() -> None:
    script = Script()
    script.contact()
    script.hello(identity("liar").public)
    script.wait(6.0)
    assert script.view.state is ViewState.WAITING and script.view.status().identity is None
    script.ctx.commands.clear()
    script.wait(10.0)
    assert commands(script.ctx, SendDatagram), "asked again"


def test_requests_are_repeated_with_their_number_and_then_the_session_is_given_up() -> None:
    script = Script()
    script.contact()
    script.hello(NUCLEUS.public)
    script.shake_hands()
    first = script.sent(Register)
    script.wait(10.0)
    assert script.all_sent() == [first] * 3
    script.wait(2.0)
    assert script.view.state is ViewState.WAITING
    assert [event.reason for event in events(script.ctx, NucleusDown)] == ["timeout"]


def test_heartbeats_follow_and_carry_the_version() -> None:
    script = Script().registered()
    sent: list[SignallingMessage] = []
    while not sent and script.now < 32.0:
        script.wait(0.5)
        sent = script.all_sent()
    (heartbeat,) = sent
    assert isinstance(heartbeat, Heartbeat)
    assert (heartbeat.epoch, heartbeat.version, heartbeat.token) == (5, 7, None)
    entry = PeerEntry(membership("friend"), Z)
    script.answer(HeartbeatAck(heartbeat.request, 5, 7, 8, joined=(entry,)))
    key = identity("friend").x25519_public
    assert script.ctx.signals == [MemberChanged(NAME, key, live=True)]
    with pytest.raises(RemoteError, match="unawaited_ack"):
        script.answer(HeartbeatAck(heartbeat.request, 5, 7, 8, left=(key,)))


def test_a_probe_is_answered_at_once_with_its_token() -> None:
    script = Script().registered()
    script.answer(Probe(b"12345678"))
    assert script.sent(Heartbeat).token == b"12345678"


def test_a_probe_before_registration_does_not_hide_the_registration() -> None:
    script = Script()
    script.contact()
    script.hello(NUCLEUS.public)
    script.shake_hands()
    register = script.sent(Register)
    script.answer(Probe(b"12345678"))
    heartbeat, again = script.all_sent()
    assert isinstance(heartbeat, Heartbeat) and heartbeat.token == b"12345678" and again == register
    script.answer(RegisterAck(register.request, RegisterStatus.OK, epoch=5, version=7))
    assert script.view.registered


def test_an_unknown_edge_registers_again_after_a_pause() -> None:
    script = Script().registered()
    script.answer(Probe(bytes(8)))
    script.answer(HeartbeatAck(script.sent(Heartbeat).request, 0, 0, 0, HeartbeatStatus.UNKNOWN))
    assert not script.view.registered and not script.all_sent()
    script.wait(3.0)
    assert script.sent(Register).candidates == ()


def test_a_pending_registration_asks_again_in_three_seconds() -> None:
    script = Script()
    script.contact()
    script.hello(NUCLEUS.public)
    script.shake_hands()
    script.answer(RegisterAck(script.sent(Register).request, RegisterStatus.PENDING))
    script.wait(2.9)
    assert not script.all_sent()
    script.wait(0.2)
    assert script.sent(Register).candidates == ()


def taken(script: Script, holder: PeerEntry | None) -> None:
    script.contact()
    script.hello(NUCLEUS.public)
    script.shake_hands()
    script.answer(RegisterAck(script.sent(Register).request, RegisterStatus.VIP_TAKEN, holder=holder))


def test_a_taken_address_is_believed_with_the_holders_membership() -> None:
    script = Script()
    claim = VipClaim(script.own.claim.address, script.own.claim.prefix)
    taken(script, PeerEntry(membership("holder", claim=claim)))
    assert script.ctx.signals == [AddressTaken(NAME, identity("holder").public)]


@pytest.mark.parametrize("lie", ["nobody", "elsewhere", "forged"])
def test_a_nucleus_cannot_talk_us_out_of_our_address(lie: str) -> None:
    script = Script()
    forged = bytearray(membership("holder", claim=VipClaim(script.own.claim.address, script.own.claim.prefix)))
    forged[-1] ^= 1
    entries = {"nobody": None, "elsewhere": PeerEntry(membership("holder")), "forged": PeerEntry(bytes(forged))}
    taken(script, entries[lie])
    assert script.ctx.signals == [] and script.view.state is ViewState.REFUSED
    script.wait(31.0)
    assert any(isinstance(message, Register) for message in script.all_sent()), "asked again later"


def test_a_clone_is_told_and_asks_again_later() -> None:
    script = Script()
    script.contact()
    script.hello(NUCLEUS.public)
    script.shake_hands()
    script.answer(RegisterAck(script.sent(Register).request, RegisterStatus.CLONED))
    assert script.ctx.signals == [CloneFound(NAME)] and not script.view.registered
    script.wait(31.0)
    assert any(isinstance(message, Register) for message in script.all_sent())


def test_a_cluster_under_another_key_is_hinted_at_only_while_we_are_alone() -> None:
    lonely = Script()
    lonely.contact()
    lonely.hello(NUCLEUS.public)
    lonely.shake_hands()
    number = lonely.sent(Register).request
    lonely.answer(RegisterAck(number, RegisterStatus.OK, epoch=5, version=7, other_keys=1))
    assert [hint.cluster for hint in events(lonely.ctx, SecretMismatchHint)] == ["unit"]
    happy = Script()
    happy.contact()
    happy.hello(NUCLEUS.public)
    happy.shake_hands()
    number = happy.sent(Register).request
    peers = (PeerEntry(membership("friend"), Z),)
    happy.answer(RegisterAck(number, RegisterStatus.OK, epoch=5, version=7, peers=peers, other_keys=1))
    assert not events(happy.ctx, SecretMismatchHint)


def test_queries_are_asked_and_pushes_are_passed_on() -> None:
    script = Script().registered()
    key = identity("friend").x25519_public
    number = script.view.query(Target(key=key), punch=True, ask_initiate=False)
    query = script.sent(QueryPeer)
    assert number == query.request and query.key == key and query.punch
    entry = PeerEntry(membership("friend"), Z, (Y,))
    script.answer(PeerInfo(0, PeerStatus.FOUND, entry, punch=True, ask_initiate=True))
    assert script.ctx.signals == [PunchWanted(key, (Z, Y), ask_initiate=True)]
    bad = PeerEntry(membership("friend")[:-1] + b"\0", Endpoint("203.0.113.1", 1))
    with pytest.raises(RemoteError, match="unverified_push"):
        script.answer(PeerInfo(0, PeerStatus.FOUND, bad, punch=True))


def test_members_that_a_new_nucleus_forgot_are_asked_for_again() -> None:
    script = Script().registered()
    key = identity("friend").x25519_public
    number = script.view.query(Target(key=key), punch=False, ask_initiate=False)
    assert number is not None
    script.answer(PeerInfo(number, PeerStatus.FOUND, PeerEntry(membership("friend"), Z)))
    script.ctx.signals.clear()
    script.view.register_again(at(script.now))
    register = next(message for message in script.all_sent() if isinstance(message, Register))
    script.answer(RegisterAck(register.request, RegisterStatus.OK, epoch=6, version=1))
    assert (
        AskAgain((key,)) in script.ctx.signals
        and MemberChanged(NAME, key, live=False, forgotten=True) in script.ctx.signals
    )


def test_leaving_says_so() -> None:
    script = Script().registered()
    script.view.leave()
    assert script.sent(Leave).request > 0 and script.ctx.timers.next() is None
