"""The report of `omni lab nat`."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from omninervous.lab.natlab import Meeting, NatLabReport
from omninervous.lab.natsites import Outcome
from omninervous.lab.tables import nat_table

MET = Meeting("public", "symmetric", Outcome.DIRECT, "it can", True, 0.5, "198.51.100.12:4000", "as it is")
APART = Meeting("symmetric", "symmetric", Outcome.NONE, "it cannot", False, None, "", "as it is")
LATE = Meeting("public", "symmetric", Outcome.DIRECT, "it can", False, None, "", "as it is")


def shown(*pairs: Meeting) -> str:
    console = Console(width=80, record=True)
    console.print(nat_table(NatLabReport(pairs, 12.0, 7)))
    return console.export_text()


def test_a_report_holds_if_all_pairs_are_as_the_oracle_says() -> None:
    good, bad = NatLabReport((MET, APART), 12.0, 7), NatLabReport((MET, LATE), 12.0, 7)
    assert good.ok and good.to_json()["ok"] is True
    assert not bad.ok and bad.to_json()["ok"] is False
    assert good.to_json()["pairs"][0] == {
        "a": "public",
        "b": "symmetric",
        "oracle": "direct",
        "reason": "it can",
        "observed": "direct",
        "seconds": 0.5,
        "path": "198.51.100.12:4000",
        "internet": "as it is",
        "ok": True,
    }
    assert good.to_json()["pairs"][1]["observed"] == "none" and good.to_json()["pairs"][1]["seconds"] is None


def test_a_connection_against_the_definition_fails_as_well() -> None:
    assert not Meeting("symmetric", "symmetric", Outcome.NONE, "it cannot", True, 0.1, "", "as it is").ok


def test_a_pair_that_may_meet_holds_either_way_and_counts_for_no_time() -> None:
    for observed, seconds in ((True, 9.0), (False, None)):
        report = NatLabReport((MET, replace(MET, oracle=Outcome.MAY_BE, observed=observed, seconds=seconds)), 12.0, 7)
        assert report.ok and report.times == (0.5, 0.5)
        assert report.to_json()["pairs"][1]["oracle"] == "may be"


def test_the_table_names_the_reason_of_a_failed_pair_only() -> None:
    text = shown(MET, LATE, APART)
    assert "1 of 2" in text and "FAIL" in text and "it can" in text and "it cannot" not in text
    assert "2 of 3 pairs" in text and "0.50 s" in text


def test_times_are_those_of_all_pairs_that_met() -> None:
    slow = [replace(MET, seconds=float(second)) for second in range(1, 101)]
    report = NatLabReport((*slow, APART), 12.0, 7)
    assert report.times == (50.5, 99.0)
    assert report.to_json()["seconds_to_direct"] == {"median": 50.5, "p99": 99.0}
    assert NatLabReport((APART,), 1.0, 7).to_json()["seconds_to_direct"] is None
    text = " ".join(shown(*slow).split())
    assert "median 50.50 s" in text and "p99 99.00 s" in text
