from __future__ import annotations

from ipaddress import IPv4Address

from omninervous.core.queries import MAX_OPEN, Queries, Target
from tests.nodes import at, context

VIP = Target(address=IPv4Address("10.200.0.9"))


def test_one_question_per_target_however_many_ask() -> None:
    queries = Queries(context())
    assert queries.ask(at(1.0), VIP) and queries.ask(at(1.0), VIP)
    assert queries.due(at(1.0)) == [(VIP, False, False)] and queries.due(at(1.0)) == []
    assert queries.ask(at(1.1), VIP, punch=True)
    assert queries.due(at(1.1)) == [(VIP, True, False)], "a new wish does not wait"


def test_an_answer_settles_it_once() -> None:
    queries = Queries(context())
    queries.ask(at(1.0), VIP)
    queries.due(at(1.0))
    queries.sent(VIP, 7, "one")
    queries.sent(VIP, 8, "two")
    assert queries.handle_answer(at(1.1), 7, found=False) is None and VIP in queries
    assert queries.handle_answer(at(1.1), 8, found=True) == VIP and VIP not in queries
    assert queries.handle_answer(at(1.1), 8, found=True) is None and not queries.failed


def test_nobody_from_everybody_is_remembered_for_two_seconds() -> None:
    queries = Queries(context())
    queries.ask(at(1.0), VIP)
    queries.due(at(1.0))
    queries.sent(VIP, 7, "one")
    queries.handle_answer(at(1.1), 7, found=False)
    assert queries.failed == [VIP]
    assert not queries.ask(at(2.0), VIP) and queries.ask(at(3.2), VIP)


def test_silence_fails_after_repeating() -> None:
    ctx = context()
    queries = Queries(ctx)
    queries.ask(at(1.0), VIP)
    asked = 0
    while (due := ctx.timers.next()) is not None:
        ctx.timers.pop_due(due)
        asked += len(queries.due(at(due)))
    assert asked == 4 and queries.failed == [VIP] and ctx.timers.next() is None


def test_open_questions_are_bounded_the_oldest_fails() -> None:
    queries = Queries(context())
    targets = [Target(mac=number.to_bytes(6, "big")) for number in range(MAX_OPEN + 5)]
    for target in targets:
        queries.ask(at(1.0), target)
    assert queries.failed == targets[:5]
