"""Looking at a peer ends by itself."""

from __future__ import annotations

import pytest

from omninervous.errors import UserError
from omninervous.ganglion.captures import LEASE, Captures

PEER, OTHER = b"p" * 32, b"o" * 32
MAC = bytes(range(6))


def test_a_lease_lasts_as_long_as_it_is_renewed() -> None:
    calls: list[tuple[bytes, bool]] = []
    captures = Captures(lambda peer, on: calls.append((peer, on)))
    assert captures.renew(10.0, PEER, "robot", MAC) == {"peer": "robot", "mac": "00:01:02:03:04:05"}
    captures.renew(12.0, OTHER, "other", MAC)
    captures.renew(14.0, PEER, "robot", MAC)
    captures.expire(12.0 + LEASE)
    assert captures.status(18.0) == [{"peer": "robot", "seconds": 8.0}, {"peer": "other", "seconds": 6.0}]
    captures.expire(12.1 + LEASE)
    assert [each["peer"] for each in captures.status(18.0)] == ["robot"]
    captures.expire(14.1 + LEASE)
    assert captures.status(20.0) == []
    assert calls == [(PEER, True), (OTHER, True), (PEER, True), (OTHER, False), (PEER, False)]


def test_what_cannot_be_looked_at_is_said() -> None:
    captures = Captures(lambda _peer, _on: None)
    with pytest.raises(UserError, match="robot has not proven its membership"):
        captures.renew(0.0, PEER, "robot", None)
    for number in range(16):
        captures.renew(0.0, bytes([number]) * 32, "one", MAC)
    with pytest.raises(UserError, match="16 peers are looked at already"):
        captures.renew(0.0, PEER, "robot", MAC)
    captures.renew(0.0, bytes([3]) * 32, "one", MAC)
