from __future__ import annotations

import pytest

from omninervous.core.natview import (
    GUESSES,
    GUESSES_PER_ATTEMPT,
    NEAR_PORTS,
    Mapping,
    count_of,
    mapping_of,
    next_ports,
    to_name,
)
from omninervous.wire.address import Endpoint
from tests.nodes import X, Y, Z

OUTSIDE, ELSEWHERE = Endpoint("203.0.113.1", 4000), Endpoint("203.0.113.1", 4001)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([], Mapping.UNKNOWN),
        ([(X, OUTSIDE)], Mapping.UNKNOWN),
        ([(X, OUTSIDE), (X._replace(port=7), ELSEWHERE)], Mapping.UNKNOWN),
        ([(X, OUTSIDE), (Y, OUTSIDE)], Mapping.ENDPOINT_INDEPENDENT),
        ([(X, OUTSIDE), (Y, ELSEWHERE)], Mapping.ADDRESS_DEPENDENT),
        ([(X, Z)], Mapping.NONE),
        ([(X, Z), (Y, OUTSIDE)], Mapping.ADDRESS_DEPENDENT),
    ],
)
def test_what_two_hosts_see_tells_the_mapping(seen: list[tuple[Endpoint, Endpoint]], expected: Mapping) -> None:
    assert mapping_of(seen, (Z,)) is expected


def outside(*ports: int) -> list[Endpoint]:
    return [Endpoint("203.0.113.1", port) for port in ports]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([], []),
        (outside(4000), []),
        (outside(4000, 4000), []),
        (outside(4000, 4001), outside(4000, 4001)),
        (outside(4009, 4000, 4003), outside(4000, 4009)),
        (outside(1000, 4000, 4000 + NEAR_PORTS), outside(4000, 4000 + NEAR_PORTS)),
        (outside(4000, 4001 + NEAR_PORTS), []),
        (outside(1000, 9000, 30000, 30001), []),
        ([Endpoint("203.0.113.1", 4000), Endpoint("203.0.113.2", 4001)], []),
        ([Endpoint("2001:db8::1", 4000), Endpoint("2001:db8::1", 4001)], []),
        ([Endpoint("192.0.2.1", 51820), *outside(4000, 4001)], outside(4000, 4001)),
    ],
)
def test_ports_that_count_are_noticed(seen: list[Endpoint], expected: list[Endpoint]) -> None:
    assert count_of(seen) == tuple(expected)


def test_two_attempts_guess_what_comes_next_and_what_lies_between() -> None:
    seen = outside(4000, 4010)
    first, second, third = (next_ports(seen, attempt) for attempt in (1, 2, 3))
    assert first == tuple(outside(*range(4011, 4011 + GUESSES_PER_ATTEMPT))) and third == first
    assert second[:9] == tuple(outside(*range(4009, 4000, -1)))
    assert len({*first, *second}) == GUESSES and not {*first, *second} & {*seen}
    assert next_ports(outside(4000), 1) == ()


def test_the_last_ports_have_no_next_one() -> None:
    assert next_ports(outside(65534, 65535), 1) == ()
    assert next_ports(outside(65530, 65533), 1) == tuple(outside(65534, 65535, 65532, 65531))


P, Q, R = (Endpoint("203.0.113.5", port) for port in (40_000, 40_003, 40_007))


@pytest.mark.parametrize(
    ("seen", "named", "counting"),
    [
        ([P], (), False),
        ([P, Q], (P, Q), True),
        ([P, Q, R], (P, R), True),
        pytest.param([P] * 11 + [Q], (Q,), False, id="one lies"),
        pytest.param([P, P, Q], (Q,), False, id="most see one port"),
        pytest.param([P, Endpoint("192.0.2.99", 40_003)], (), False, id="another's address"),
    ],
)
def test_what_others_see_is_named_and_one_voice_makes_no_count(
    seen: list[Endpoint], named: tuple[Endpoint, ...], counting: bool
) -> None:
    assert to_name(seen, [P]) == (named, counting)
