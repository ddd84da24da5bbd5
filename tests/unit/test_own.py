from __future__ import annotations

from omninervous.core.events import PersistSerial, PersistVip, VipAssigned, VipLost, VipRefused
from omninervous.core.membership import VALIDITY, verify
from omninervous.core.own import OwnAddress
from omninervous.core.vip import derive_claim, parse_vip
from omninervous.wire.membership import MAX_DERIVATION
from tests.nodes import EPOCH, at, cluster, context, events, identity

HOLDER = identity("holder").public
OWN = identity("own")


def test_a_derived_address_is_granted_lost_and_followed_by_the_next() -> None:
    ctx = context("own")
    own = OwnAddress(ctx)
    assert own.claim == derive_claim(OWN.public, 0) and list(own.addresses) == [OWN.ula]
    assert own.granted() and not own.granted()
    assert list(own.addresses) == [own.claim.address, OWN.ula]
    first = own.claim.address
    own.taken(HOLDER)
    assert own.claim == derive_claim(OWN.public, 1) and not own.held
    own.granted()
    found = [event for event in ctx.events if not isinstance(event, PersistSerial)]
    assert [type(event) for event in found] == [VipAssigned, PersistVip, VipLost, VipAssigned, PersistVip]
    assert events(ctx, VipLost)[0] == VipLost(first, HOLDER)


def test_derivations_begin_again_after_the_last() -> None:
    own = OwnAddress(context("own", derivation=MAX_DERIVATION))
    own.taken(HOLDER)
    assert own.claim.derivation == 0


def test_a_taken_explicit_address_is_kept_as_a_wish() -> None:
    ctx = context("own", claim=parse_vip("10.200.0.1"))
    own = OwnAddress(ctx)
    own.taken(HOLDER)
    own.taken(HOLDER)
    assert events(ctx, VipRefused) == [VipRefused(own.claim.address, HOLDER)], "said once"
    assert own.granted() and own.held


def test_memberships_are_signed_grow_and_follow_the_claim() -> None:
    ctx = context("own", serial_mark=2 * int(EPOCH), name="box")
    own = OwnAddress(ctx)
    first = own.membership(at(1.0))
    assert first is not None and own.membership(at(2.0)) == first
    body = verify(first, cluster().public, EPOCH)
    assert body.serial == 2 * int(EPOCH) + 1 and body.name == "box" and body.claim == own.claim
    own.taken(HOLDER)
    second = own.membership(at(3.0))
    assert second is not None and verify(second, cluster().public, EPOCH).serial == body.serial + 1
    assert [event.serial for event in events(ctx, PersistSerial)] == [body.serial, body.serial + 1]


def test_a_lost_serial_mark_is_made_up_for_by_the_calendar() -> None:
    raw = OwnAddress(context("own")).membership(at(0.0))
    assert raw is not None and verify(raw, cluster().public, EPOCH).serial == int(EPOCH)


def test_a_membership_is_renewed_at_half_life_and_when_the_clock_went_back() -> None:
    own = OwnAddress(context("own"))
    own.membership(at(0.0))
    assert not own.renewal_due(at(0.0, EPOCH + VALIDITY / 2 - 1))
    assert own.renewal_due(at(0.0, EPOCH + VALIDITY / 2)) and own.renewal_due(at(0.0, EPOCH - 1))


def test_members_learn_our_membership_and_pairs_our_key() -> None:
    own = OwnAddress(context("own"))
    caps = own.caps(at(1.0), bytes(8), member=True)
    assert caps.membership is not None and caps.identity is None and caps.vip is None
    pair = own.caps(at(1.0), bytes(8), member=False)
    assert pair.membership is None and pair.identity == OWN.public and pair.vip is None, "no address held yet"
    own.granted()
    assert own.caps(at(1.0), bytes(8), member=False).vip == own.claim


def test_the_rule_says_who_has_the_stronger_claim() -> None:
    own = OwnAddress(context("own"))
    own.granted()
    explicit = parse_vip(str(own.claim.address))
    assert own.beaten_by(HOLDER, explicit, live=True)
    assert not own.beaten_by(HOLDER, derive_claim(HOLDER, 0), live=True), "another address"
    assert not own.beaten_by(HOLDER, own.claim, live=False), "we hold it"
