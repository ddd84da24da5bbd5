from __future__ import annotations

import errno

from omninervous.core.trials import PER_PEER, Trials
from tests.nodes import X, Y

PEER, OTHER = b"p" * 32, b"o" * 32


def test_what_was_tried_and_what_came_back_is_kept_per_address() -> None:
    trials = Trials()
    trials.initiation(1.0, PEER, (X, Y))
    trials.initiation(2.0, PEER, (X,))
    trials.challenge(3.0, PEER, X)
    trials.refusal(Y, errno.ENETUNREACH)
    trials.answer(4.0, PEER, X)
    y, x = trials.of(PEER)
    assert (x.initiations, x.challenges, x.answers, x.tried_at, x.answered_at, x.errno) == (2, 1, 1, 3.0, 4.0, None)
    assert (y.initiations, y.answers, y.errno) == (1, 0, errno.ENETUNREACH)
    trials.answer(5.0, PEER, Y)
    assert trials.of(PEER)[0].errno is None and not trials.of(OTHER)
    trials.forget(PEER)
    assert not trials.of(PEER)


def test_the_record_is_bounded() -> None:
    trials = Trials()
    for port in range(1, 100):
        trials.challenge(float(port), PEER, X._replace(port=port))
    assert [each.endpoint.port for each in trials.of(PEER)] == list(range(100 - PER_PEER, 100))
