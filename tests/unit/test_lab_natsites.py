"""The oracle says what RFC 4787's definitions say, case by case, by hand."""

from __future__ import annotations

import pytest

from omninervous.lab.natsites import SITES, Outcome, Pair, judge, pairs_of

BY_NAME = {site.name: site for site in SITES}


@pytest.mark.parametrize(
    ("a", "b", "outcome"),
    [
        ("public", "symmetric", Outcome.DIRECT),
        ("public", "public", Outcome.DIRECT),
        ("full-cone", "symmetric", Outcome.DIRECT),
        ("address-restricted", "symmetric", Outcome.DIRECT),
        ("port-restricted", "symmetric", Outcome.NONE),
        ("port-restricted", "port-restricted", Outcome.DIRECT),
        ("symmetric", "symmetric", Outcome.NONE),
        ("sequential", "port-restricted", Outcome.MAY_BE),
        ("double-nat", "sequential", Outcome.MAY_BE),
        ("sequential", "address-restricted", Outcome.DIRECT),
        ("sequential", "sequential", Outcome.NONE),
        ("sequential", "carrier-symmetric", Outcome.NONE),
        ("double-nat", "port-restricted", Outcome.DIRECT),
        ("double-nat", "carrier-symmetric", Outcome.NONE),
        ("carrier-symmetric", "address-restricted", Outcome.DIRECT),
        ("dual-stack", "dual-symmetric", Outcome.DIRECT),
        ("dual-symmetric", "symmetric", Outcome.NONE),
        ("dual-stack", "ipv6-only", Outcome.DIRECT),
        ("ipv6-only", "ipv6-only", Outcome.DIRECT),
        ("ipv6-only", "public", Outcome.NONE),
        ("udp-blocked", "public", Outcome.NONE),
        ("udp-blocked", "udp-blocked", Outcome.NONE),
        ("same-lan", "same-lan", Outcome.DIRECT),
        ("same-carrier", "same-carrier", Outcome.NONE),
        ("hairpin-carrier", "hairpin-carrier", Outcome.DIRECT),
        ("same-carrier", "hairpin-carrier", Outcome.DIRECT),
    ],
)
def test_a_pair(a: str, b: str, outcome: Outcome) -> None:
    verdict = judge(BY_NAME[a], BY_NAME[b])
    assert verdict.outcome is outcome, verdict.reason
    assert judge(BY_NAME[b], BY_NAME[a]).outcome is outcome, "the order does not matter"


def test_every_pair_has_a_verdict_with_a_reason() -> None:
    pairs = pairs_of(SITES)
    assert len(SITES) >= 12 and len(pairs) == len(SITES) * (len(SITES) + 1) // 2
    assert all(Pair(pair.a, pair.b).verdict.reason for pair in pairs)
