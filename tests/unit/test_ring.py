"""The ring: who is whose flood neighbour, and what has to be said about it since a version."""

from __future__ import annotations

import random

import pytest

from omninervous.core import ring as ring_module
from omninervous.core.ring import FLOOD_SIDE, LOG_SECONDS, Ring, flood_set
from tests.registries import key_of


def ring_of(numbers: range) -> tuple[Ring, int]:
    """A ring with these members, one a version, and its version."""
    ring = Ring(0)
    for version, number in enumerate(numbers, 1):
        ring.join(key_of(number), version)
    return ring, len(numbers)


def test_in_a_small_cluster_everybody_is_a_neighbour() -> None:
    ring, version = ring_of(range(2 * FLOOD_SIDE + 1))
    others = {key_of(number) for number in range(1, 2 * FLOOD_SIDE + 1)}
    assert set(ring.flood(key_of(0), version)) == others


def test_flood_sets_are_symmetric_full_and_computable_from_the_keys() -> None:
    ring, version = ring_of(range(300))
    keys = [key_of(number) for number in range(300)]
    sets = {key: set(ring.flood(key, version)) for key in keys}
    assert {len(members) for members in sets.values()} == {2 * FLOOD_SIDE}
    assert all(key in sets[member] for key, members in sets.items() for member in members)
    assert all(set(flood_set(key, keys)) == members for key, members in sets.items())


def test_a_flood_set_follows_from_the_complete_view() -> None:
    ring, version = ring_of(range(200))
    own = key_of(0)
    view = {*ring.flood(own, version), own, *(key_of(number) for number in range(50))}
    assert set(flood_set(own, view)) == set(ring.flood(own, version))


def test_a_departed_neighbour_brings_in_the_next_one() -> None:
    ring, version = ring_of(range(200))
    own = key_of(0)
    before = ring.flood(own, version)
    ring.leave(0.0, before[3], version + 1)
    steps = ring.delta(own, version, version + 1, {})
    assert [step.key for step in steps if not step.present] == [before[3]]
    (newcomer,) = [step.key for step in steps if step.present]
    assert newcomer not in before and set(ring.flood(own, version + 1)) == {newcomer, *before} - {before[3]}


def test_what_happens_elsewhere_on_the_ring_is_not_told() -> None:
    ring, version = ring_of(range(200))
    own = key_of(0)
    far = next(key_of(number) for number in range(1, 200) if key_of(number) not in ring.flood(own, version))
    ring.change(far, version + 1)
    ring.leave(0.0, far, version + 2)
    assert ring.delta(own, version, version + 2, {}) == []
    assert [step.present for step in ring.delta(own, version, version + 2, {far: None})] == [False]


@pytest.mark.parametrize(("side", "members"), [(FLOOD_SIDE, 120), (2, 12), (1, 8)])
def test_every_version_leads_to_the_present_flood_set(
    side: int, members: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the exact flood set of any version, the delta gives the exact flood set of now."""
    monkeypatch.setattr(ring_module, "FLOOD_SIDE", side)
    rng = random.Random(seed)
    ring, version = ring_of(range(members))
    live, away, own = set(range(members)), set(range(members, members + members // 3)), key_of(0)
    history = {version: set(ring.flood(own, version))}
    for _ in range(300):
        version += 1
        kind = rng.choice(("join", "leave", "leave", "change") if len(live) > members // 2 else ("join", "change"))
        if kind == "join" and away:
            number = rng.choice(sorted(away))
            ring.join(key_of(number), version)
            live.add(number)
            away.discard(number)
        elif kind == "leave":
            number = rng.choice(sorted(live - {0}))
            ring.leave(0.0, key_of(number), version)
            live.discard(number)
            away.add(number)
        else:
            ring.change(key_of(rng.choice(sorted(live - {0}))), version)
        history[version] = set(ring.flood(own, version))
        assert history[version] == set(flood_set(own, [key_of(number) for number in sorted(live)]))
        for since in rng.choices(sorted(history), k=3):
            steps = ring.delta(own, since, version, {})
            held = history[since] | {step.key for step in steps if step.present}
            assert held - {step.key for step in steps if not step.present} == history[version], since


def test_old_departures_are_forgotten_by_number_and_by_age() -> None:
    ring = Ring(0, log_size=2)
    for version, number in enumerate(range(5), 1):
        ring.join(key_of(number), version)
    for version, number in enumerate(range(1, 4), 6):
        ring.leave(10.0, key_of(number), version)
    assert ring.floor == 6
    ring.trim(11.0 + LOG_SECONDS)
    assert ring.floor == 8 and len(ring) == 2
    ring.join(key_of(1), 9)
    assert set(ring.flood(key_of(0), 9)) == {key_of(1), key_of(4)}
