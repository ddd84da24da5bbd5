from __future__ import annotations

import pytest

from omninervous.core.natview import Mapping, mapping_of
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
