"""Virtual IPs: derivation, collisions, disputes, `--vip`."""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address, IPv4Network
from itertools import permutations, product

import pytest

from omninervous.core.identity import key_hash
from omninervous.core.vip import (
    DEFAULT_SUBNET,
    Contender,
    claim_problem,
    derive_claim,
    derive_vip,
    derived_from,
    parse_vip,
    wins,
)
from omninervous.errors import UserError
from omninervous.wire.membership import MAX_DERIVATION, VipClaim


def key(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(4, "big")).digest()


def test_a_derived_address_is_a_host_of_the_subnet() -> None:
    for text in ("10.200.0.0/13", "10.0.0.0/8", "192.0.2.0/29", "192.0.2.4/30"):
        subnet = IPv4Network(text)
        hosts = {derive_vip(key(number), 0, subnet) for number in range(300)}
        assert all(address in subnet for address in hosts)
        assert not hosts & {subnet.network_address, subnet.broadcast_address}
        if subnet.num_addresses <= 8:
            assert hosts == {*subnet.hosts()}


def test_derived_claims_can_be_checked_by_everybody() -> None:
    for derivation in (0, 1, MAX_DERIVATION):
        claim = derive_claim(key(1), derivation)
        assert claim_problem(claim.address, claim.prefix) is None
        assert derived_from(key(1), claim)
        assert not derived_from(key(2), claim)
    assert derived_from(key(1), VipClaim(IPv4Address("10.200.0.1"), 13))
    assert not derived_from(key(1), VipClaim(IPv4Address("10.200.0.1"), 13, 0))


def test_colliding_identities_all_find_an_address() -> None:
    """220 machines in 254 addresses: nearly all of them meet somebody else's address on the way."""
    subnet = IPv4Network("192.0.2.0/24")
    holders: dict[IPv4Address, bytes] = {}
    derivations: dict[bytes, int] = {}
    arriving = [key(number) for number in range(220)]
    while arriving:
        newcomer = arriving.pop()
        address = derive_vip(newcomer, derivations.setdefault(newcomer, 0), subnet)
        holder = holders.get(address)
        if holder is not None and wins(Contender(holder, False, True), Contender(newcomer, False, False)):
            derivations[newcomer] += 1
            arriving.append(newcomer)
        else:
            holders[address] = newcomer
    assert len(holders) == 220
    assert max(derivations.values()) > 3  # they did collide
    assert all(derive_vip(holder, derivations[holder], subnet) == address for address, holder in holders.items())


def test_collisions_happen_in_the_default_subnet_at_a_few_thousand_machines() -> None:
    addresses = [derive_vip(key(number), 0) for number in range(3000)]
    assert 1 <= len(addresses) - len(set(addresses)) <= 40  # 8.6 expected


def test_the_rule_is_explicit_then_holder_then_hash() -> None:
    low, high = sorted((key(1), key(2)), key=key_hash)
    assert wins(Contender(high, True, False), Contender(low, False, True))
    assert wins(Contender(high, False, True), Contender(low, False, False))
    assert wins(Contender(high, True, True), Contender(low, True, False))
    for explicit, holds in product((False, True), repeat=2):
        assert wins(Contender(low, explicit, holds), Contender(high, explicit, holds))


def test_the_rule_is_a_strict_order() -> None:
    contenders = [
        Contender(key(n), explicit, holds) for n in range(3) for explicit, holds in product((False, True), repeat=2)
    ]
    for a, b in permutations(contenders, 2):
        if a.identity != b.identity:
            assert wins(a, b) != wins(b, a)
    for a, b, c in permutations(contenders, 3):
        assert not (wins(a, b) and wins(b, c)) or wins(a, c)


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("10.200.0.1", VipClaim(IPv4Address("10.200.0.1"), 13)),
        (" 10.200.0.1/24 ", VipClaim(IPv4Address("10.200.0.1"), 24)),
        ("192.168.7.9/30", VipClaim(IPv4Address("192.168.7.9"), 30)),
        ("8.8.8.8/8", VipClaim(IPv4Address("8.8.8.8"), 8)),
    ],
)
def test_an_address_with_or_without_a_length_is_taken(text: str, claim: VipClaim) -> None:
    assert parse_vip(text) == claim
    assert parse_vip(text).explicit


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not an IPv4 address"),
        ("10.200.0", "not an IPv4 address"),
        ("10.200.0.01", "not an IPv4 address"),
        ("10.200.0.256", "not an IPv4 address"),
        ("fd00::1", "not an IPv4 address"),
        ("robot-1", "not an IPv4 address"),
        ("10.200.0.1/", "not a prefix length"),
        ("10.200.0.1/x", "not a prefix length"),
        ("10.200.0.1/-1", "not a prefix length"),
        ("10.200.0.1/\u0661\u0663", "not a prefix length"),
        ("10.200.0.1/24/24", "not a prefix length"),
        ("10.200.0.1/7", "/8 to /30"),
        ("10.200.0.1/31", "/8 to /30"),
        ("10.200.0.1/99", "/8 to /30"),
        ("10.200.0.0", "the network 10.200.0.0/13 itself"),
        ("10.207.255.255", "the broadcast address of 10.200.0.0/13"),
        ("10.200.0.255/24", "the broadcast address"),
        ("10.200.0.8/30", "the network"),
        ("0.0.0.0", "this network"),
        ("0.1.2.3", "this network"),
        ("127.0.0.1", "loopback"),
        ("224.0.0.251", "multicast"),
        ("169.254.1.1", "link-local"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
    ],
)
def test_an_address_that_no_machine_may_have_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_vip(text)


def test_the_default_subnet_is_the_documented_one() -> None:
    assert str(DEFAULT_SUBNET) == "10.200.0.0/13"
