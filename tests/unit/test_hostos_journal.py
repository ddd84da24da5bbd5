"""The journal of events: bounded, numbered, waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from omninervous.errors import UserError
from omninervous.hostos.journal import CAPACITY, Journal


def ask(journal: Journal, **arguments: Any) -> dict[str, Any]:
    return asyncio.run(journal.answer(arguments))


def test_events_come_once_and_in_order() -> None:
    journal = Journal()
    for number in range(5):
        journal.keep("info", "tick", which=number)
    first = ask(journal, limit=3)
    assert [each["which"] for each in first["events"]] == [0, 1, 2] and first["last"] == 3 and first["lost"] == 0
    rest = ask(journal, after=first["last"])
    assert [each["which"] for each in rest["events"]] == [3, 4] and rest["last"] == 5
    assert ask(journal, after=5) == {"events": [], "lost": 0, "last": 5}


def test_what_is_forgotten_is_counted() -> None:
    journal = Journal()
    for _ in range(CAPACITY + 7):
        journal.keep("info", "tick")
    assert ask(journal)["lost"] == 7


def test_numbers_of_an_earlier_daemon_begin_anew() -> None:
    journal = Journal()
    journal.keep("info", "tick")
    assert len(ask(journal, after=500)["events"]) == 1


def test_waiting_ends_with_the_next_event() -> None:
    async def wait() -> dict[str, Any]:
        journal = Journal()
        asyncio.get_running_loop().call_soon(journal.keep, "info", "news")
        return await journal.answer({"after": 0, "wait": 20})

    assert asyncio.run(wait())["events"][0]["event"] == "news"


@pytest.mark.parametrize("arguments", [{"after": "x"}, {"limit": 0}, {"wait": None}])
def test_nonsense_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        ask(Journal(), **arguments)
