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


def test_a_punch_comes_before_a_retry() -> None:
    attempts = Attempts(context())
    attempts.plan_retry(at(10.0))
    attempts.plan_punch(at(10.0))
    assert attempts.planned and attempts.due(at(10.1)) and not attempts.due(at(10.05))
    attempts.begin(at(10.1))
    assert not attempts.planned and attempts.active
