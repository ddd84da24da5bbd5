"""What a peer entry knows of its path. The tables are tested through the data path, which is their only user."""

from __future__ import annotations

import pytest

from omninervous.core.dataplane import Link, SetPeer
from omninervous.core.forwarding import PeerEntry
from omninervous.core.fragments import Reassembler
from omninervous.wire.address import Endpoint

PEER = b"p" * 32
V4, V6 = Endpoint("192.0.2.1", 1), Endpoint("2001:db8::1", 1)
OWN_MAC = bytes(6)


def entry(mtu: int, endpoint: Endpoint) -> PeerEntry:
    peer = PeerEntry(PEER, Reassembler(), 0)
    peer.set_policy(SetPeer(PEER, Link.ETHERNET, mtu=mtu), OWN_MAC)
    peer.set_endpoint(endpoint, None)
    return peer


@pytest.mark.parametrize(
    ("mtu", "endpoint", "room"),
    [(1500, V4, 1500 - 28 - 32), (1500, V6, 1500 - 48 - 32), (9000, V4, 9000 - 28 - 32), (68, V4, 576 - 28 - 32)],
)
def test_the_room_of_a_datagram_is_the_mtu_without_headers_and_sealing(mtu: int, endpoint: Endpoint, room: int) -> None:
    assert entry(mtu, endpoint).room == room


def test_a_refused_size_leads_down_the_steps_until_there_is_none() -> None:
    peer = entry(9000, V4)
    found = []
    while peer.shrink(peer.room + 32):
        found.append(peer.room + 32 + 28)
    assert found == [1500, 1400, 1280, 576]


def test_a_datagram_from_before_the_path_shrank_shrinks_it_no_further() -> None:
    peer = entry(1500, V4)
    assert peer.shrink(1472)
    assert peer.shrink(1472)
    assert peer.room == 1400 - 28 - 32


def test_what_the_path_taught_outlives_the_same_policy_and_endpoint_but_no_new_one() -> None:
    peer = entry(1500, V4)
    peer.shrink(1472)
    peer.set_policy(SetPeer(PEER, Link.ETHERNET), OWN_MAC)
    peer.set_endpoint(V4, 100)
    assert peer.room == 1400 - 28 - 32
    peer.set_endpoint(V6, None)
    assert peer.room == 1500 - 48 - 32
