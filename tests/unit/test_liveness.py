from __future__ import annotations

from omninervous.core.dataplane import SessionActivity
from omninervous.core.liveness import Liveness


def activity(
    index: int = 1, *, tx: float = 0.0, tx_data: float = 0.0, rx: float = 0.0, rx_data: float = 0.0, packets: int = 0
) -> SessionActivity:
    return SessionActivity(bytes(32), index, tx, tx_data, rx, rx_data, packets, packets * 100, packets, packets * 100)


def test_data_is_answered_by_a_keepalive_after_ten_seconds() -> None:
    liveness = Liveness()
    liveness.handle_handshake(100.0)
    liveness.handle_activity(activity(rx=101.0, rx_data=101.0))
    assert not liveness.keepalive_due(102.0, persistent=False)
    liveness.handle_activity(activity(rx=110.0, rx_data=110.0))
    assert not liveness.keepalive_due(110.0, persistent=False)
    assert liveness.keepalive_due(111.0, persistent=False), "ten seconds after the first unanswered data, not the last"
    assert not liveness.keepalive_due(111.5, persistent=False)


def test_an_answer_in_time_needs_no_keepalive() -> None:
    liveness = Liveness()
    liveness.handle_activity(activity(rx=101.0, rx_data=101.0))
    assert not liveness.keepalive_due(102.0, persistent=False)
    liveness.handle_activity(activity(rx=101.0, rx_data=101.0, tx=105.0, tx_data=105.0))
    assert not liveness.keepalive_due(120.0, persistent=False)


def test_unanswered_data_means_silence_after_fifteen_seconds() -> None:
    liveness = Liveness()
    liveness.handle_handshake(100.0)
    liveness.handle_activity(activity(tx=101.0, tx_data=101.0))
    assert not liveness.silent(102.0)
    liveness.handle_activity(activity(tx=115.0, tx_data=115.0))
    assert not liveness.silent(115.0) and liveness.silent(116.0)
    liveness.handle_activity(activity(tx=115.0, tx_data=115.0, rx=115.5))
    assert not liveness.silent(140.0), "a keepalive is a sign of life"


def test_keepalives_do_not_ask_for_answers() -> None:
    liveness = Liveness()
    liveness.handle_handshake(100.0)
    liveness.handle_activity(activity(tx=125.0, rx=124.0))
    assert not liveness.keepalive_due(140.0, persistent=False) and not liveness.silent(160.0)


def test_a_persistent_keepalive_comes_every_25_seconds() -> None:
    liveness = Liveness()
    liveness.handle_handshake(100.0)
    assert not liveness.keepalive_due(124.9, persistent=True) and liveness.keepalive_due(125.0, persistent=True)


def test_an_answer_that_is_late_is_asked_for_and_silence_is_measured() -> None:
    liveness = Liveness()
    liveness.handle_handshake(100.0)
    assert not liveness.unanswered(101.0) and not liveness.carries_data(101.0, 10.0) and liveness.used(101.0, 10.0)
    liveness.handle_activity(activity(tx=101.0, tx_data=101.0, rx=100.9))
    assert not liveness.unanswered(101.1) and liveness.unanswered(101.3) and liveness.carries_data(110.0, 10.0)
    liveness.handle_activity(activity(tx=101.0, tx_data=101.0, rx=101.1))
    assert not liveness.unanswered(200.0) and liveness.silence(104.1) == 3.0


def test_totals_survive_their_sessions() -> None:
    liveness = Liveness()
    liveness.handle_activity(activity(1, packets=2))
    liveness.handle_activity(activity(1, packets=3))
    liveness.handle_removed(1)
    liveness.handle_activity(activity(2, packets=4))
    total = liveness.totals()
    assert (total.rx_packets, total.tx_bytes) == (7, 700)
