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
    assert not liveness.keepalive_due(102.0, kept=False)
    liveness.handle_activity(activity(rx=110.0, rx_data=110.0))
    assert not liveness.keepalive_due(110.0, kept=False)
    assert liveness.keepalive_due(111.0, kept=False), "ten seconds after the first unanswered data, not the last"
    assert not liveness.keepalive_due(111.5, kept=False)


def test_an_answer_in_time_needs_no_keepalive() -> None:
    liveness = Liveness()
    liveness.handle_activity(activity(rx=101.0, rx_data=101.0))
    assert not liveness.keepalive_due(102.0, kept=False)
    liveness.handle_activity(activity(rx=101.0, rx_data=101.0, tx=105.0, tx_data=105.0))
    assert not liveness.keepalive_due(120.0, kept=False)


def test_unanswered_data_means_silence_after_fifteen_seconds() -> None:
    liveness = Liveness()
    liveness.handle_handshake(100.0)
    liveness.handle_activity(activity(tx=101.0, tx_data=101.0))
    assert not liveness.silent(102.0, kept=False)
    liveness.handle_activity(activity(tx=115.0, tx_data=115.0))
    assert not liveness.silent(115.0, kept=False) and liveness.silent(116.0, kept=False)
    liveness.handle_activity(activity(tx=115.0, tx_data=115.0, rx=115.5))
    assert not liveness.silent(140.0, kept=False), "a keepalive is a sign of life"


def test_keepalives_do_not_ask_for_answers() -> None:
    liveness = Liveness()
    liveness.handle_handshake(100.0)
    liveness.handle_activity(activity(tx=125.0, rx=124.0))
    assert not liveness.keepalive_due(140.0, kept=False) and not liveness.silent(160.0, kept=False)


def test_a_kept_link_is_kept_and_its_silence_noticed() -> None:
    liveness = Liveness()
    liveness.handle_handshake(100.0)
    assert not liveness.keepalive_due(124.9, kept=True) and liveness.keepalive_due(125.0, kept=True)
    assert not liveness.silent(144.9, kept=True) and liveness.silent(145.0, kept=True)


def test_totals_survive_their_sessions() -> None:
    liveness = Liveness()
    liveness.handle_activity(activity(1, packets=2))
    liveness.handle_activity(activity(1, packets=3))
    liveness.handle_removed(1)
    liveness.handle_activity(activity(2, packets=4))
    total = liveness.totals()
    assert (total.rx_packets, total.tx_bytes) == (7, 700)
