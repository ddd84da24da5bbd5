"""Trying packet sizes on one path: when, how large, and what an answer or its lack means."""

from __future__ import annotations

from omninervous.core.dataplane import SendControl
from omninervous.core.pathmtu import TRIES, TRY_EVERY, VERIFY_EVERY, PathMtu
from omninervous.wire.address import Endpoint
from omninervous.wire.control import PathChallenge, decode_control
from tests.nodes import X, Y, at, commands, context

FULL = 1380 + 14 + 1 + 32 + 28
V6 = Endpoint("2001:db8::1", 51820)


class Trial:
    def __init__(self, mtu: int = 1380) -> None:
        self.ctx = context(mtu=mtu)
        self.size = PathMtu(self.ctx)

    def tick(self, boot: float, path: Endpoint = X) -> list[tuple[int, bytes]]:
        """Bytes of IP packet and token of what was sent."""
        self.size.tick(at(boot), 7, path)
        found = []
        for command in commands(self.ctx, SendControl):
            message = decode_control(command.payload)
            assert isinstance(message, PathChallenge) and command.endpoint == path and not message.in_use
            found.append((len(command.payload) + 32 + (48 if ":" in path.host else 28), message.token))
        return found

    def answered(self, boot: float, token: bytes) -> bool:
        return self.size.handle_response(at(boot), token)


def test_an_answer_settles_it_for_a_minute() -> None:
    trial = Trial()
    ((size, token),) = trial.tick(1.0)
    assert size == FULL and trial.answered(1.1, token) and trial.size.mtu is None
    assert not trial.answered(1.2, token), "once"
    assert trial.tick(1.1 + VERIFY_EVERY - 0.1) == []
    ((size, _),) = trial.tick(1.1 + VERIFY_EVERY)
    assert size == FULL


def test_tries_are_apart_however_often_there_is_news() -> None:
    trial = Trial()
    sent = [trial.tick(1.0 + step / 100) for step in range(100)]
    assert sum(map(len, sent)) == 2 and trial.size.mtu is None


def test_four_without_an_answer_make_it_small_and_a_late_answer_large_again() -> None:
    trial = Trial()
    tokens = [trial.tick(1.0 + number)[0][1] for number in range(TRIES)]
    assert len(set(tokens)) == 1, "any of them may be answered"
    assert trial.tick(1.0 + TRIES) == [] and trial.size.mtu == 1280
    assert [each.code for each in trial.ctx.problems.values()] == ["path_mtu"]
    again = 1.0 + TRIES + VERIFY_EVERY
    ((size, token),) = trial.tick(again)
    assert size == FULL and trial.answered(again + 0.1, token)
    assert trial.size.mtu is None and not trial.ctx.problems


def test_a_doubt_about_the_path_begins_the_count_anew() -> None:
    trial = Trial()
    for number in range(3 * TRIES):
        trial.tick(1.0 + number)
        trial.size.pause()
    assert trial.size.mtu is None


def test_another_path_and_the_end_of_the_peer_take_it_back() -> None:
    trial = Trial()
    for number in range(TRIES + 1):
        trial.tick(1.0 + number)
    assert trial.size.mtu == 1280
    ((size, _),) = trial.tick(10.0, Y)
    assert size == FULL and trial.size.mtu is None and not trial.ctx.problems
    for number in range(1, TRIES + 1):
        trial.tick(10.0 + number, Y)
    assert trial.size.mtu == 1280
    trial.size.forget()
    assert trial.size.mtu is None and not trial.ctx.problems


def test_a_large_overlay_goes_down_in_steps_and_ipv6_has_larger_headers() -> None:
    trial = Trial(mtu=9000)
    assert trial.tick(1.0, V6)[0][0] == 9000 + 14 + 1 + 32 + 48
    for number in range(1, TRIES):
        trial.tick(1.0 + number, V6)
    ((size, token),) = trial.tick(1.0 + TRIES, V6)
    assert size == 1500 == trial.size.mtu
    assert trial.answered(2.0 + TRIES, token) and trial.size.mtu == 1500
    assert TRY_EVERY < 1.0, "or every other tick of a second would come a moment too early"
