from __future__ import annotations

import pytest

from omninervous.core.membership import CLOCK_SKEW, VALIDITY
from omninervous.core.ring import ring_position
from omninervous.core.roster import Roster
from omninervous.core.vip import parse_vip
from omninervous.errors import RemoteError
from omninervous.wire.signalling import PeerEntry
from tests.nodes import EPOCH, X, Y, Z, at, cluster, identity, membership

NOW = at(1.0)
VIP = parse_vip("10.200.0.9")


def roster(capacity: int = 100) -> Roster:
    return Roster(identity("own").x25519_public, cluster().public, capacity)


def key(name: str) -> bytes:
    return identity(name).x25519_public


def test_a_member_is_found_by_everything_that_names_it() -> None:
    known = roster()
    member = known.learn(NOW, membership("a"))
    assert member is not None and member.claim is not None and member.name == "a"
    assert known.find(key("a")) is known.by_mac(member.mac) is known.holder(member.ula) is member
    assert known.holder(member.claim.address) is member
    assert known.addresses(member) == (member.claim.address, member.ula)
    assert list(known.changed) == [key("a")] and known.dirty


def test_our_own_membership_is_not_a_member() -> None:
    assert roster().learn(NOW, membership("own")) is None


def test_only_a_newer_membership_replaces_one() -> None:
    known = roster()
    old, new = membership("a", 5, VIP), membership("a", 6)
    known.learn(NOW, old)
    known.learn(NOW, new)
    with pytest.raises(RemoteError, match="membership_old"):
        known.learn(NOW, old)
    member = known.learn(NOW, new)
    assert member is not None and member.claim != VIP and known.holder(VIP.address) is None


def test_where_a_member_is_counts_even_with_an_old_membership() -> None:
    known = roster()
    old, new = membership("a", 5), membership("a", 6)
    known.learn(NOW, new)
    member = known.learn_entry(NOW, PeerEntry(old, X, (Y,)))
    assert member is not None and member.membership is not None
    assert member.membership.raw == new and list(member.endpoints) == [X, Y]
    member.reached = Z
    assert list(member.endpoints) == [Z, X, Y]


def test_a_second_identity_for_one_key_is_refused() -> None:
    known = roster()
    known.learn_pair(key("a"), identity("somebody else").public, None)
    with pytest.raises(RemoteError, match="second_identity"):
        known.learn(NOW, membership("a"))


def test_strangers_memberships_are_refused() -> None:
    with pytest.raises(RemoteError, match="membership_"):
        Roster(key("own"), cluster("another").public, 9).learn(NOW, membership("a"))
    with pytest.raises(RemoteError, match="no_cluster"):
        Roster(key("own"), None, 9).learn(NOW, membership("a"))


def test_one_address_has_one_holder_and_the_next_in_line_inherits() -> None:
    known = roster()
    first, second = (known.learn_entry(NOW, PeerEntry(membership(name, claim=VIP), X)) for name in "ab")
    assert first is not None and second is not None
    known.mark(key("a"), "n", live=True)
    known.changed.clear()
    known.mark(key("b"), "n", live=True)
    holder = known.holder(VIP.address)
    loser = second if holder is first else first
    assert holder is not None and known.addresses(loser) == (loser.ula,)
    known.changed.clear()
    known.mark(holder.key, "n", live=False)
    assert known.holder(VIP.address) is loser and set(known.changed) == {key("a"), key("b")}, "a live one wins"
    known.forget(loser.key)
    assert known.holder(VIP.address) is holder


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("name", [f"thief-{number}" for number in range(4)])  # some have the lower key hash
def test_what_only_a_member_says_of_itself_takes_no_address_from_whom_a_nucleus_gave_it(
    name: str, explicit: bool
) -> None:
    known = roster()
    holder = known.learn_entry(NOW, PeerEntry(membership("holder", claim=VIP if explicit else None), X))
    thief = known.learn_entry(NOW, PeerEntry(membership(name), Y))
    assert holder is not None and holder.claim is not None and thief is not None
    address = holder.claim.address
    for each in (holder, thief):
        known.mark(each.key, "n", live=True)
    stolen = membership(name, 6, parse_vip(str(address)))
    known.learn(NOW, stolen, thief.key)
    assert known.holder(address) is holder and known.addresses(thief) == (thief.ula,)
    # Who is no longer there loses it to who is; and what the Nucleus lets stand is settled by the rule.
    known.mark(holder.key, "n", live=False)
    assert known.holder(address) in (holder, thief)
    known.learn_entry(NOW, PeerEntry(stolen, Y))
    assert known.holder(address) is thief


def test_a_member_speaks_for_nobody_else() -> None:
    known = roster()
    with pytest.raises(RemoteError, match="membership_of_another"):
        known.learn(NOW, membership("a"), key("b"))
    with pytest.raises(RemoteError, match="membership_of_another"):
        known.learn(NOW, membership("own"), key("b"))
    assert len(known) == 0


def test_expired_and_surplus_members_are_named() -> None:
    known = roster(capacity=2)
    for name in "abc":
        known.learn(NOW, membership(name))
    known.mark(key("a"), "n", live=True)
    assert known.surplus() == [key("b")]
    late = at(1.0, wall=EPOCH + VALIDITY + CLOCK_SKEW)
    assert known.expired(late) == [key(name) for name in "abc"] and known.expired(NOW) == []


def test_the_flood_set_is_the_neighbourhood_on_the_ring() -> None:
    known = roster()
    names = [f"member {number}".replace(" ", "-") for number in range(40)]
    for name in names:
        known.learn(NOW, membership(name))
        known.mark(key(name), "n", live=True)
    ring = sorted((*(key(name) for name in names), key("own")), key=ring_position)
    own = ring.index(key("own"))
    expected = {ring[(own + step) % 41] for step in range(-3, 4) if step}
    assert set(known.flood(only_live=True, side=3)) == expected
    assert len(known.flood(only_live=True, side=32)) == 40
    known.mark(key(names[0]), "n", live=False)
    assert len(known.flood(only_live=True, side=32)) == 39 and len(known.flood(only_live=False, side=32)) == 40


def test_pairs_are_known_but_not_cached_and_not_flooded_by_ring() -> None:
    known = roster()
    pair = known.learn_pair(key("a"), identity("a").public, VIP)
    assert known.holder(VIP.address) is pair and known.cache() == () and known.flood(only_live=False, side=9) == []
    known.learn_pair(key("a"), identity("a").public, None)
    assert known.holder(VIP.address) is None
