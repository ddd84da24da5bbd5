from __future__ import annotations

from omninervous.core.attempts import Attempts
from tests.nodes import at, context


def test_attempts_last_five_seconds_and_end_after_ninety() -> None:
    attempts = Attempts(context())
    now = 0.0
    attempts.begin(at(now))
    while not attempts.hopeless(at(now)):
        deadline = attempts.deadline()
        assert deadline is not None and 5.0 <= deadline - now < 5.34
        now = deadline
        assert attempts.over(at(now)) and not attempts.over(at(now - 0.01))
        attempts.next(at(now))
    assert 17 <= attempts.count <= 19
    attempts.stop()
    assert attempts.deadline() is None and attempts.seconds(at(now)) == 0.0


def test_retries_are_short_and_become_rare_until_one_succeeds() -> None:
    attempts = Attempts(context())
    pauses = []
    for _ in range(6):
        attempts.plan_retry(at(100.0))
        deadline = attempts.deadline()
        assert deadline is not None
        pauses.append((deadline - 100.0) // 25 * 25)
    assert pauses == [25.0, 50.0, 100.0, 200.0, 300.0, 300.0]
    attempts.begin(at(500.0), briefly=True)
    assert attempts.hopeless(at(510.0))
    attempts.insist()
    assert not attempts.hopeless(at(510.0))
    attempts.succeed()
    attempts.plan_retry(at(600.0))
    deadline = attempts.deadline()
    assert deadline is not None and 625.0 <= deadline <= 630.0


def test_a_punch_comes_before_a_retry() -> None:
    attempts = Attempts(context())
    attempts.plan_retry(at(10.0))
    attempts.plan_punch(at(10.0))
    assert attempts.planned and attempts.due(at(10.1)) and not attempts.due(at(10.05))
    attempts.begin(at(10.1))
    assert not attempts.planned and attempts.active
