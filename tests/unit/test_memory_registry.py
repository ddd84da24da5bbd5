"""The registry in memory: who is a member, who holds an address, and what an edge is told."""

from __future__ import annotations

from omninervous.core.memory_registry import MemoryRegistry
from omninervous.core.registry import (
    INTEREST_LIMIT,
    MEMBER_TIMEOUT,
    ClusterId,
    Lookup,
    Page,
    Registration,
    Since,
)
from omninervous.core.ring import FLOOD_SIDE
from omninervous.wire.address import Endpoint
from omninervous.wire.membership import VipClaim
from omninervous.wire.signalling import RegisterStatus
from tests.registries import CLUSTER, key_of, membership, registration

EPOCH = 7
ROOMY = 1 << 20


def registry_of(numbers: range, **options: int) -> MemoryRegistry:
    registry = MemoryRegistry(EPOCH, **options)
    for number in numbers:
        assert registry.register(0.0, CLUSTER, registration(number)).status is RegisterStatus.OK
    return registry


def page(
    registry: MemoryRegistry, number: int, version: int = 0, cursor: bytes | None = None, room: int = ROOMY
) -> Page:
    return registry.page(CLUSTER, key_of(number), Since(EPOCH, version, cursor), room)


def test_a_heartbeat_that_says_nothing_new_makes_no_version() -> None:
    registry = registry_of(range(3))
    version = page(registry, 0).version
    assert registry.refresh(5.0, CLUSTER, key_of(1), registration(1).endpoint, ()) is not None
    answer = page(registry, 0, version)
    assert (answer.version, answer.joined, answer.left, answer.more) == (version, (), (), False)


def test_a_new_endpoint_or_candidate_is_told_to_the_view() -> None:
    registry = registry_of(range(3))
    version = page(registry, 0).version
    registry.refresh(5.0, CLUSTER, key_of(1), Endpoint("203.0.113.1", 9), ())
    registry.refresh(5.0, CLUSTER, key_of(2), None, (Endpoint("10.0.0.1", 1),))
    answer = page(registry, 0, version)
    assert {entry.reflexive for entry in answer.joined} == {Endpoint("203.0.113.1", 9), registration(2).endpoint}
    assert {entry.candidates for entry in answer.joined} == {(), (Endpoint("10.0.0.1", 1),)}


def test_who_is_silent_for_ninety_seconds_is_gone() -> None:
    registry = registry_of(range(3))
    registry.refresh(50.0, CLUSTER, key_of(0), None, ())
    version = page(registry, 0).version
    assert registry.next_expiry() == MEMBER_TIMEOUT
    assert registry.expire(MEMBER_TIMEOUT - 0.1) == 0
    assert registry.expire(MEMBER_TIMEOUT) == 2
    assert registry.next_expiry() == 50.0 + MEMBER_TIMEOUT
    assert set(page(registry, 0, version).left) == {key_of(1), key_of(2)}
    assert registry.member(CLUSTER, key_of(1)) is None and registry.stats() == (1, 1)


def test_the_full_list_is_never_sent() -> None:
    registry = registry_of(range(500))
    answer = page(registry, 0)
    assert answer.since == 0 and len(answer.joined) == 2 * FLOOD_SIDE and not answer.more


def test_pages_fit_the_room_and_together_hold_everything() -> None:
    registry = registry_of(range(100))
    room, cursor, pages = 700, None, []
    while True:
        answer = page(registry, 0, cursor=cursor, room=room)
        assert sum(3 + len(entry.encode()) for entry in answer.joined) <= room and answer.since == 0
        pages.append(answer)
        cursor = answer.cursor
        if not answer.more:
            break
    told = [entry.membership for answer in pages for entry in answer.joined]
    assert sorted(told) == sorted(entry.membership for entry in page(registry, 0).joined)
    assert len({answer.version for answer in pages}) == 1 and len(pages) > 20


def test_no_room_for_an_entry_gives_an_empty_page_with_a_cursor() -> None:
    registry = registry_of(range(2))
    answer = page(registry, 0, room=100)
    assert answer.joined == () and answer.more and answer.cursor is not None and len(answer.cursor) == 32
    assert len(page(registry, 0, cursor=answer.cursor).joined) == 1


def test_versions_from_elsewhere_give_a_snapshot() -> None:
    registry = registry_of(range(4), log_size=1)
    version = page(registry, 0).version
    for number in (1, 2):
        registry.leave(0.0, CLUSTER, key_of(number))
    for since in (
        Since(EPOCH + 1, version),
        Since(EPOCH, version + 100),
        Since(EPOCH, version),  # the log no longer reaches back
        Since(EPOCH, 0, b"\xff" * 32),
        Since(EPOCH, version + 2, bytes(32)),
    ):
        answer = registry.page(CLUSTER, key_of(0), since, ROOMY)
        assert answer.since == 0 and [entry.membership[:32] for entry in answer.joined] == [key_of(3)]


def test_versions_of_a_cluster_that_died_out_mean_nothing_in_the_next_one() -> None:
    registry = registry_of(range(2))
    version = page(registry, 0).version
    for number in range(2):
        registry.leave(0.0, CLUSTER, key_of(number))
    assert registry.stats() == (0, 0) and registry.next_expiry() is None
    registry.register(0.0, CLUSTER, registration(0))
    assert page(registry, 0, version).since == 0


def test_address_mac_and_key_find_a_member_and_its_changes_are_told_from_then_on() -> None:
    registry = registry_of(range(200))
    flood = {entry.membership[:32] for entry in page(registry, 0).joined}
    far = next(number for number in range(1, 200) if key_of(number) not in flood)
    target = membership(far)
    for lookup in (
        Lookup(address=target.claim.address.packed),
        Lookup(address=target.ula.packed),
        Lookup(mac=target.mac),
        Lookup(key=target.x25519),
    ):
        found = registry.find(CLUSTER, key_of(0), lookup)
        assert found is not None and found.key == target.x25519
    version = page(registry, 0).version
    registry.leave(0.0, CLUSTER, key_of(far))
    assert page(registry, 0, version).left == (key_of(far),)
    registry.register(0.0, CLUSTER, registration(far))
    assert [entry.membership[:32] for entry in page(registry, 0, version + 1).joined] == [key_of(far)]


def test_a_key_asked_for_in_vain_is_told_when_it_comes() -> None:
    registry = registry_of(range(200))
    late = next(number for number in range(200, 300) if not _in_flood(number))
    assert registry.find(CLUSTER, key_of(0), Lookup(key=key_of(late))) is None
    version = page(registry, 0).version
    registry.register(0.0, CLUSTER, registration(late))
    assert key_of(late) in [entry.membership[:32] for entry in page(registry, 0, version).joined]


def _in_flood(number: int) -> bool:
    registry = registry_of(range(200))
    registry.register(0.0, CLUSTER, registration(number))
    return key_of(number) in {entry.membership[:32] for entry in page(registry, 0).joined}


def test_nobody_finds_himself_or_a_member_of_another_cluster() -> None:
    registry = registry_of(range(2))
    elsewhere = ClusterId("fleet", b"\1" * 32)
    registry.register(0.0, elsewhere, registration(5))
    assert registry.find(CLUSTER, key_of(0), Lookup(key=key_of(0))) is None
    assert registry.find(CLUSTER, key_of(0), Lookup(key=key_of(5))) is None
    assert registry.other_keys(CLUSTER) == 1 and registry.other_keys(ClusterId("x", bytes(32))) == 0


def test_a_queried_neighbour_stays_in_view_when_others_push_it_out_of_the_flood_set() -> None:
    registry = registry_of(range(66))
    before = {entry.membership[:32] for entry in page(registry, 0).joined}
    version = page(registry, 0).version
    for number in range(66, 400):
        registry.register(0.0, CLUSTER, registration(number))
    pushed_out = before - {entry.membership[:32] for entry in page(registry, 0).joined}
    queried = sorted(pushed_out)[0]
    registry.find(CLUSTER, key_of(0), Lookup(key=queried))
    assert set(page(registry, 0, version).left) == pushed_out - {queried}


def test_forgotten_interest_is_told_by_a_snapshot() -> None:
    registry = registry_of(range(400))
    version = page(registry, 0).version
    for number in range(1, INTEREST_LIMIT + 1):
        registry.find(CLUSTER, key_of(0), Lookup(key=key_of(number)))
    assert page(registry, 0, version).since == version
    registry.find(CLUSTER, key_of(0), Lookup(key=key_of(INTEREST_LIMIT + 1)))
    answer = page(registry, 0, version)
    told = {entry.membership[:32] for entry in answer.joined}
    assert answer.since == 0
    assert told >= {key_of(number) for number in range(INTEREST_LIMIT // 2 + 1, INTEREST_LIMIT + 2)}
    assert page(registry, 0, answer.version).since == answer.version


def test_registering_again_begins_a_new_interest_and_tells_it_by_a_snapshot() -> None:
    registry = registry_of(range(400))
    version = page(registry, 0).version
    registry.register(0.0, CLUSTER, registration(0))
    assert page(registry, 0, version).since == version  # there was nothing to forget
    registry.find(CLUSTER, key_of(0), Lookup(key=key_of(7)))
    registry.register(0.0, CLUSTER, registration(0))
    assert page(registry, 0, version).since == 0


def claim_of(number: int, *, explicit: bool) -> VipClaim:
    address = membership(number).claim.address
    return VipClaim(address, 13, None if explicit else 0)


def test_explicit_beats_derived_then_the_holder_stays() -> None:
    registry = MemoryRegistry(EPOCH)
    registry.register(0.0, CLUSTER, registration(1, claim=claim_of(1, explicit=False)))
    derived = registry.register(0.0, CLUSTER, registration(2, claim=claim_of(1, explicit=False)))
    assert derived.status is RegisterStatus.VIP_TAKEN and derived.holder is not None
    assert derived.holder.membership[:32] == key_of(1)
    assert registry.member(CLUSTER, key_of(2)) is None
    explicit = registry.register(0.0, CLUSTER, registration(3, claim=claim_of(1, explicit=True)))
    assert explicit.status is RegisterStatus.OK and explicit.displaced == key_of(1)
    loser = registry.member(CLUSTER, key_of(1))
    assert loser is not None and loser.displaced_by == key_of(3)
    second = registry.register(0.0, CLUSTER, registration(4, claim=claim_of(1, explicit=True)))
    assert second.status is RegisterStatus.VIP_TAKEN
    back = registry.register(0.0, CLUSTER, registration(1, claim=claim_of(9, explicit=False)))
    assert back.status is RegisterStatus.OK
    loser = registry.member(CLUSTER, key_of(1))
    assert loser is not None and loser.displaced_by is None


def test_an_address_is_free_when_its_holder_leaves_or_takes_another() -> None:
    registry = registry_of(range(2))
    registry.register(0.0, CLUSTER, registration(0, claim=claim_of(7, explicit=True)))
    taken = registry.register(0.0, CLUSTER, registration(2, claim=claim_of(0, explicit=True)))
    assert taken.status is RegisterStatus.OK and taken.displaced is None
    registry.leave(0.0, CLUSTER, key_of(1))
    assert registry.find(CLUSTER, key_of(0), Lookup(address=membership(1).claim.address.packed)) is None


def test_a_second_identity_of_one_x25519_key_is_refused() -> None:
    registry = registry_of(range(1))
    other = Registration(membership(0, identity=b"\x55" * 32), bytes(16), Endpoint("192.0.2.9", 9))
    assert registry.register(0.0, CLUSTER, other).status is RegisterStatus.REFUSED


def test_a_full_registry_takes_no_one_new_but_keeps_its_members() -> None:
    registry = registry_of(range(3), max_members=3)
    assert registry.register(0.0, CLUSTER, registration(3)).status is RegisterStatus.FULL
    assert registry.register(0.0, CLUSTER, registration(1, port=9)).status is RegisterStatus.OK
    registry.leave(0.0, CLUSTER, key_of(0))
    assert registry.register(0.0, CLUSTER, registration(3)).status is RegisterStatus.OK
