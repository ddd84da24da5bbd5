from __future__ import annotations

from omninervous.core.staging import STAGED_IN_ALL, STAGED_PER_PEER, Staging


def peer(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_frames_come_back_in_order_and_once() -> None:
    staging = Staging()
    assert [staging.add(peer(1), frame) for frame in (b"a", b"b")] == [0, 0]
    assert staging.holds(peer(1)) and not staging.holds(peer(2))
    assert staging.take(peer(1)) == (b"a", b"b") and staging.take(peer(1)) == () and len(staging) == 0


def test_the_oldest_of_a_peer_goes_first() -> None:
    staging = Staging()
    dropped = sum(staging.add(peer(1), bytes([number])) for number in range(STAGED_PER_PEER + 3))
    assert dropped == 3 and staging.take(peer(1))[0] == b"\x03"


def test_the_oldest_of_all_goes_first() -> None:
    staging = Staging()
    staging.add(peer(0), b"oldest")
    dropped = 0
    for number in range(1, 1 + STAGED_IN_ALL // STAGED_PER_PEER):
        dropped += sum(staging.add(peer(number), b"frame") for _ in range(STAGED_PER_PEER))
    assert dropped == 1 and not staging.holds(peer(0)) and len(staging) == STAGED_IN_ALL
