"""Memberships: issued by an edge for itself, verified by every edge that meets it. Layout: `wire.membership`.

Two signatures: the identity's (nobody else can speak for a key) and the cluster key's (only who knows the secret is a
member). Both cover the cluster's public key, so a membership of one cluster says nothing in another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from omninervous.core.identity import Identity, mac_of, ula_of, x25519_of
from omninervous.core.identity import verify as signature_holds
from omninervous.core.secret import ClusterKeys
from omninervous.core.vip import claim_problem, derived_from
from omninervous.errors import DecodeError, RemoteError
from omninervous.wire.membership import (
    CLUSTER_LABEL,
    IDENTITY_LABEL,
    MembershipBody,
    SignedMembership,
    VipClaim,
    decode_membership,
    signed_bytes,
)

__all__ = ["CLOCK_SKEW", "VALIDITY", "Membership", "issue", "verify"]

VALIDITY = 7 * 24 * 3600
"""Seconds for which a membership is issued."""
CLOCK_SKEW = 25 * 3600
"""Seconds by which two clocks may differ (a day, as from a wrong time zone or date, and an hour)."""


@dataclass(frozen=True, slots=True)
class Membership:
    """A verified membership, and what follows from its identity."""

    identity: bytes
    """Ed25519 public key."""
    x25519: bytes
    """Static key of its handshakes: whoever uses this membership in a session must have exactly this one."""
    serial: int
    not_before: int
    not_after: int
    claim: VipClaim
    name: str | None
    mac: bytes
    ula: IPv6Address
    raw: bytes = field(repr=False)
    """The membership as carried."""

    @property
    def vip(self) -> IPv4Address:
        """The address it claims."""
        return self.claim.address

    @property
    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """Every address the member may send from, its link-local one aside."""
        return (self.claim.address, self.ula)

    @property
    def expires_at(self) -> int:
        """Wall-clock second from which `verify` refuses it."""
        return self.not_after + CLOCK_SKEW


def issue(
    identity: Identity, cluster: ClusterKeys, claim: VipClaim, name: str | None, serial: int, now_wall: float
) -> bytes:
    """A membership for oneself, valid for a week from `now_wall` (seconds since 1970)."""
    now = int(now_wall)
    body = MembershipBody(identity.public, serial, now, now + VALIDITY, claim, name)
    body_bytes = body.encode()
    return SignedMembership(
        body,
        body_bytes,
        identity.sign(signed_bytes(IDENTITY_LABEL, cluster.public, body_bytes)),
        cluster.sign(signed_bytes(CLUSTER_LABEL, cluster.public, body_bytes)),
    ).encode()


def verify(data: bytes, cluster_public: bytes, now_wall: float) -> Membership:
    """The membership in these bytes, if it is one of this cluster and valid at `now_wall`; RemoteError's reason else:

    membership_malformed, membership_bad_identity (no good key), membership_bad_vip (an address nobody may have, or not
    derived as it says), membership_bad_signature (one signature fails), membership_wrong_cluster (both fail: signed for
    another cluster, or altered), membership_validity (longer than a week), membership_not_yet_valid,
    membership_expired.
    """
    membership = _timeless(data, cluster_public)
    _check_times(membership, now_wall)
    return membership


# An edge sees the same membership again and again (CAPS of every session, view, query): the costly part, which no clock
# changes, is remembered for the newest few thousand. Failures are not.
@lru_cache(maxsize=4096)
def _timeless(data: bytes, cluster_public: bytes) -> Membership:
    try:
        signed = decode_membership(data)
    except DecodeError as error:
        raise RemoteError("membership_malformed", str(error)) from error
    body = signed.body
    x25519 = _checked_key(body)
    _check_signatures(signed, cluster_public)
    return Membership(
        identity=body.identity,
        x25519=x25519,
        serial=body.serial,
        not_before=body.not_before,
        not_after=body.not_after,
        claim=body.claim,
        name=body.name,
        mac=mac_of(body.identity),
        ula=ula_of(body.identity),
        raw=data,
    )


def _checked_key(body: MembershipBody) -> bytes:
    try:
        x25519 = x25519_of(body.identity)
    except RemoteError as error:
        raise RemoteError("membership_bad_identity") from error
    problem = claim_problem(body.claim.address, body.claim.prefix)
    if problem is not None:
        raise RemoteError("membership_bad_vip", f"{body.claim}: {problem}")
    if not derived_from(body.identity, body.claim):
        raise RemoteError("membership_bad_vip", f"{body.claim} is not derivation {body.claim.derivation}")
    return x25519


def _check_times(body: Membership, now_wall: float) -> None:
    if not 0 <= body.not_after - body.not_before <= VALIDITY + CLOCK_SKEW:
        raise RemoteError("membership_validity", f"{body.not_after - body.not_before} s")
    if now_wall < body.not_before - CLOCK_SKEW:
        raise RemoteError("membership_not_yet_valid", f"in {body.not_before - now_wall:.0f} s")
    if now_wall >= body.not_after + CLOCK_SKEW:
        raise RemoteError("membership_expired", f"{now_wall - body.not_after:.0f} s ago")


def _check_signatures(signed: SignedMembership, cluster_public: bytes) -> None:
    by_identity, by_cluster = (
        signature_holds(public, signed_bytes(label, cluster_public, signed.body_bytes), signature)
        for public, label, signature in (
            (signed.body.identity, IDENTITY_LABEL, signed.identity_signature),
            (cluster_public, CLUSTER_LABEL, signed.cluster_signature),
        )
    )
    if not by_identity and not by_cluster:
        raise RemoteError("membership_wrong_cluster")
    if not by_identity or not by_cluster:
        raise RemoteError("membership_bad_signature", "identity" if by_cluster else "cluster")
