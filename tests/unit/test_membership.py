"""Memberships: who is a member, of what, and when."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from omninervous.core.identity import Identity
from omninervous.core.membership import CLOCK_SKEW, VALIDITY, issue, verify
from omninervous.core.secret import ClusterKeys, derive_cluster
from omninervous.core.vip import derive_claim
from omninervous.errors import RemoteError
from omninervous.wire.membership import (
    CLUSTER_LABEL,
    IDENTITY_LABEL,
    MembershipBody,
    SignedMembership,
    VipClaim,
    decode_membership,
    signed_bytes,
)

NOW = 1_700_000_000.75
WHEN = int(NOW)
IDENTITY = Identity.from_seed(b"i" * 32)
CLUSTER = derive_cluster("fleet", None)
OTHER = derive_cluster("other", None)
CLAIM = derive_claim(IDENTITY.public, 0)
BODY = MembershipBody(IDENTITY.public, 5, WHEN, WHEN + VALIDITY, CLAIM, "robot-1")
MEMBERSHIP = issue(IDENTITY, CLUSTER, CLAIM, "robot-1", 5, NOW)


def sign(
    body: MembershipBody, identity: Identity = IDENTITY, cluster: ClusterKeys = CLUSTER, extra: bytes = b""
) -> bytes:
    data = body.encode() + extra
    by_identity = identity.sign(signed_bytes(IDENTITY_LABEL, cluster.public, data))
    return SignedMembership(
        body, data, by_identity, cluster.sign(signed_bytes(CLUSTER_LABEL, cluster.public, data))
    ).encode()


def refusal(data: bytes, cluster: ClusterKeys = CLUSTER, now: float = NOW) -> str:
    with pytest.raises(RemoteError) as caught:
        verify(data, cluster.public, now)
    return caught.value.reason


def test_an_issued_membership_verifies_and_says_who_it_is() -> None:
    assert sign(BODY) == MEMBERSHIP
    membership = verify(MEMBERSHIP, CLUSTER.public, NOW)
    assert membership.identity == IDENTITY.public
    assert membership.x25519 == IDENTITY.x25519_public
    assert (membership.mac, membership.ula) == (IDENTITY.mac, IDENTITY.ula)
    assert (membership.serial, membership.not_before, membership.not_after) == (5, WHEN, WHEN + VALIDITY)
    assert (membership.claim, membership.name, membership.raw) == (CLAIM, "robot-1", MEMBERSHIP)
    assert membership.addresses == (CLAIM.address, IDENTITY.ula)


def test_it_is_valid_for_a_week_and_a_days_skew() -> None:
    for moment in (WHEN - CLOCK_SKEW, WHEN + VALIDITY + CLOCK_SKEW - 1):
        membership = verify(MEMBERSHIP, CLUSTER.public, moment)
    assert refusal(MEMBERSHIP, now=WHEN - CLOCK_SKEW - 1) == "membership_not_yet_valid"
    assert refusal(MEMBERSHIP, now=membership.expires_at) == "membership_expired"
    assert refusal(MEMBERSHIP, now=0) == "membership_not_yet_valid"


def test_nobody_issues_a_membership_for_longer() -> None:
    for length in (VALIDITY + CLOCK_SKEW + 1, -1, 2**63):
        assert refusal(sign(replace(BODY, not_after=WHEN + length))) == "membership_validity"
    verify(sign(replace(BODY, not_after=WHEN + VALIDITY + CLOCK_SKEW)), CLUSTER.public, NOW)


def test_a_membership_of_another_cluster_says_nothing_here() -> None:
    assert refusal(MEMBERSHIP, OTHER) == "membership_wrong_cluster"
    assert refusal(sign(BODY, cluster=OTHER)) == "membership_wrong_cluster"


def test_one_signature_is_not_enough() -> None:
    signed, foreign = decode_membership(MEMBERSHIP), decode_membership(sign(BODY, cluster=OTHER))
    stranger = decode_membership(sign(BODY, identity=Identity.from_seed(b"s" * 32)))
    for broken in (
        replace(signed, cluster_signature=foreign.cluster_signature),
        replace(signed, identity_signature=stranger.identity_signature),
        replace(signed, identity_signature=signed.cluster_signature),
        replace(signed, cluster_signature=bytes(64)),
    ):
        assert refusal(broken.encode()) == "membership_bad_signature"


def test_every_byte_of_it_is_covered() -> None:
    for position in range(len(MEMBERSHIP)):
        data = bytearray(MEMBERSHIP)
        data[position] ^= 0x04
        assert refusal(bytes(data)).startswith("membership_")


def test_fields_of_a_later_version_are_covered_too() -> None:
    data = sign(BODY, extra=b"\x63\x00\x03new")
    assert verify(data, CLUSTER.public, NOW).identity == IDENTITY.public
    assert refusal(data.replace(b"new", b"now")) == "membership_wrong_cluster"


@pytest.mark.parametrize(
    "identity",
    [bytes(32), b"\x01" + bytes(31), b"\xff" * 32, (2).to_bytes(32, "little")],
    ids=lambda key: key.hex()[:4],
)
def test_a_key_with_which_anybody_can_sign_is_refused(identity: bytes) -> None:
    claim = VipClaim(IPv4Address("10.200.0.1"), 13)
    assert refusal(sign(replace(BODY, identity=identity, claim=claim))) == "membership_bad_identity"


@pytest.mark.parametrize(
    "claim",
    [
        VipClaim(IPv4Address("224.0.0.1"), 13),
        VipClaim(IPv4Address("127.0.0.1"), 13),
        VipClaim(IPv4Address("0.0.0.0"), 13),
        VipClaim(IPv4Address("10.207.255.255"), 13),
        VipClaim(IPv4Address("10.200.0.1"), 32),
        VipClaim(IPv4Address("10.200.0.1"), 0),
        VipClaim(IPv4Address("10.200.0.1"), 13, 0),
        replace(CLAIM, derivation=1),
    ],
    ids=str,
)
def test_an_address_that_nobody_may_have_or_that_is_not_derived_is_refused(claim: VipClaim) -> None:
    assert refusal(sign(replace(BODY, claim=claim))) == "membership_bad_vip"


@pytest.mark.parametrize("data", [b"", MEMBERSHIP[:-1], MEMBERSHIP + b"\0", bytes(300)], ids=len)
def test_what_is_no_membership_is_malformed(data: bytes) -> None:
    assert refusal(data) == "membership_malformed"
