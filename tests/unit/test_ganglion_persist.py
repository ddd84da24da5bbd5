"""What an edge remembers over a restart."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from omninervous.core.events import CachedMember
from omninervous.core.identity import Identity
from omninervous.ganglion.persist import Memory, Remembered
from omninervous.hostos.state import StateDir
from omninervous.wire.address import Endpoint
from omninervous.wire.membership import VipClaim

CLUSTER = bytes(32)
CLAIM = VipClaim(IPv4Address("10.200.0.1"), 13)
NUCLEUS = Identity.from_seed(bytes(32)).public


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path)


def recall(state: StateDir, cluster: bytes = CLUSTER, claim: VipClaim | None = None) -> Remembered:
    return Memory(state, cluster, claim).recall()


def test_a_first_run_remembers_nothing(state: StateDir) -> None:
    assert recall(state) == Remembered(None, 0, 0, False, {}, ())


def test_what_was_kept_comes_back(state: StateDir) -> None:
    members = (CachedMember(b"signed", (Endpoint("192.0.2.1", 5), Endpoint("2001:db8::1", 6))), CachedMember(b"other"))
    memory = Memory(state, CLUSTER, None)
    memory.keep_timestamp(bytes(range(12)))
    memory.keep_serial(7)
    memory.keep_vip(3)
    memory.keep_pin("host:51820", NUCLEUS)
    memory.keep_members(members)
    assert recall(state) == Remembered(bytes(range(12)), 7, 3, True, {"host:51820": NUCLEUS}, members)


def test_one_mark_does_not_forget_the_other(state: StateDir) -> None:
    Memory(state, CLUSTER, None).keep_serial(7)
    Memory(state, CLUSTER, None).keep_timestamp(bytes(12))
    assert recall(state).serial_mark == 7


def test_another_cluster_shares_the_marks_but_not_members_and_vip(state: StateDir) -> None:
    memory = Memory(state, CLUSTER, None)
    memory.keep_serial(7)
    memory.keep_vip(3)
    memory.keep_members((CachedMember(b"signed"),))
    other = recall(state, cluster=bytes([1]) * 32)
    assert (other.serial_mark, other.derivation, other.vip_known, other.members) == (7, 0, False, ())


def test_an_explicit_address_is_known_only_if_it_is_the_same(state: StateDir) -> None:
    Memory(state, CLUSTER, CLAIM).keep_vip(None)
    assert recall(state, claim=CLAIM).vip_known
    assert not recall(state, claim=VipClaim(IPv4Address("10.200.0.2"), 13)).vip_known
    assert not recall(state).vip_known


@pytest.mark.parametrize("name", ["marks.json", "vip.json", "pins.json", "members.json"])
@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"timestamp": 5, "serial": "x"}', '{"timestamp": "zz"}', '{"host:1": "nonsense"}', '{"a": 1}'],
)
def test_a_damaged_file_counts_as_none(state: StateDir, name: str, content: str) -> None:
    (state.path / name).write_text(content)
    assert recall(state) == Remembered(None, 0, 0, False, {}, ())


def test_damaged_members_are_skipped_one_by_one(state: StateDir) -> None:
    good = {"membership": "c2lnbmVk", "endpoints": [["192.0.2.1", 5]]}
    entries = [good, {"membership": "?"}, 5, {"membership": "c2lnbmVk", "endpoints": [["nonsense", 5]]}]
    state.write_json("members.json", {"cluster": CLUSTER.hex(), "members": entries})
    assert recall(state).members == (CachedMember(b"signed", (Endpoint("192.0.2.1", 5),)),)
