"""The oracle says what RFC 4787's definitions say, case by case, by hand."""

from __future__ import annotations

import pytest

from omninervous.lab.natsites import SITES, Pair, judge, pairs_of

BY_NAME = {site.name: site for site in SITES}


@pytest.mark.parametrize(
    ("a", "b", "direct"),
    [
        ("public", "symmetric", True),
        ("public", "public", True),
        ("full-cone", "symmetric", True),
        ("address-restricted", "symmetric", True),
        ("port-restricted", "symmetric", False),
        ("port-restricted", "port-restricted", True),
        ("symmetric", "symmetric", False),
        ("sequential", "port-restricted", False),
        ("double-nat", "port-restricted", True),
        ("double-nat", "carrier-symmetric", False),
        ("carrier-symmetric", "address-restricted", True),
        ("dual-stack", "dual-symmetric", True),
        ("dual-symmetric", "symmetric", False),
        ("dual-stack", "ipv6-only", True),
        ("ipv6-only", "ipv6-only", True),
        ("ipv6-only", "public", False),
        ("udp-blocked", "public", False),
        ("udp-blocked", "udp-blocked", False),
        ("same-lan", "same-lan", True),
        ("same-carrier", "same-carrier", False),
        ("hairpin-carrier", "hairpin-carrier", True),
        ("same-carrier", "hairpin-carrier", True),
    ],
)
def test_a_pair(a: str, b: str, direct: bool) -> None:
    verdict = judge(BY_NAME[a], BY_NAME[b])
    assert verdict.direct is direct, verdict.reason
    assert judge(BY_NAME[b], BY_NAME[a]).direct is direct, "the order does not matter"


def test_every_pair_has_a_verdict_with_a_reason() -> None:
    pairs = pairs_of(SITES)
    assert len(SITES) >= 12 and len(pairs) == len(SITES) * (len(SITES) + 1) // 2
    assert all(Pair(pair.a, pair.b).verdict.reason for pair in pairs)
