"""Causes in words: the first that fits."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from omninervous.core.dataplane import Link
from omninervous.core.diagnosis import diagnose
from omninervous.core.events import NodeSnapshot, NucleusStatus, PathStatus, PeerStatus, Problem
from omninervous.core.natview import Mapping
from omninervous.core.trials import Trial
from omninervous.wire.address import Endpoint
from tests.nodes import X, Y

KEY = b"k" * 32
NUCLEUS = NucleusStatus("n:1", X, None, "up", registered=True, version=1, observed=Y, rtt=0.01, hint="")
SNAPSHOT = NodeSnapshot(None, (), (NUCLEUS,), (), (), 0, 0, 0, {}, {})
PEER = PeerStatus(
    *(KEY, "member", Link.ETHERNET, "connecting", KEY, "robot", None, None, None, None, None, (), 25.0, False, ()),
    *(None, 0, 0, 0, 0, (), None),
)
TRIED = Trial(X, initiations=5, tried_at=100.0)
SIXTH = Trial(Endpoint("2001:db8::1", 7), initiations=5, tried_at=100.0)


def cause(
    peer: PeerStatus = PEER,
    *trials: Trial,
    snapshot: NodeSnapshot = SNAPSHOT,
    mapping: Mapping = Mapping.UNKNOWN,
) -> str:
    found = diagnose(peer, trials, snapshot, mapping)
    assert found.cause and (found.remedy or "direct path" in found.cause)
    return found.cause


def test_a_path_that_is_there_needs_no_remedy() -> None:
    assert "over lan" in cause(replace(PEER, state="up", proven=True, path=PathStatus("lan", X, 0.001)), TRIED)


@pytest.mark.parametrize(
    ("text", "trials", "more"),
    [
        ("no address of it is known", (), {}),
        ("no Nucleus answers", (), {"snapshot": replace(SNAPSHOT, nuclei=(replace(NUCLEUS, registered=False),))}),
        ("nothing came back from 1", (TRIED,), {}),
        ("no route", (replace(TRIED, errno=errno.ENETUNREACH),), {}),
        ("only IPv6", (SIXTH,), {}),
        ("another port for each destination", (TRIED,), {"mapping": Mapping.ADDRESS_DEPENDENT}),
        ("answers from", (TRIED, replace(TRIED, answers=1, answered_at=100.5)), {}),
        (
            "other secret",
            (TRIED,),
            {"snapshot": replace(SNAPSHOT, problems=(Problem("p", "other secret", KEY.hex()),))},
        ),
    ],
)
def test_causes(text: str, trials: tuple[Trial, ...], more: dict[str, object]) -> None:
    assert text in cause(PEER, *trials, **more)  # type: ignore[arg-type]


def test_a_peer_that_nobody_asked_for_is_idle() -> None:
    assert "nothing has asked" in cause(replace(PEER, state="idle"))
