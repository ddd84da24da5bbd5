"""The anti-replay window of one lane's receive direction (the sliding window of RFC 6479, blocks in a dict).

State grows with what was received: an idle session holds a few bytes, a busy one 129 small integers.
"""

from __future__ import annotations

__all__ = ["REPLAY_WINDOW", "ReplayWindow"]

REPLAY_WINDOW = 8192
"""Sequence numbers: how far behind the newest a packet may arrive."""

_BLOCK_SHIFT = 6
_BLOCK_MASK = (1 << _BLOCK_SHIFT) - 1


class ReplayWindow:
    """Says of every sequence number once, and only once, that it is new."""

    __slots__ = ("_blocks", "_reach", "_size", "highest")

    def __init__(self, size: int = REPLAY_WINDOW) -> None:
        assert size > 0
        self._size = size
        self._reach = -(-size >> _BLOCK_SHIFT)  # blocks behind the front one that the window can touch
        self._blocks: dict[int, int] = {}  # number of a block of 64 -> bitmap of what arrived
        self.highest = -1
        """Greatest sequence number accepted; -1 = none yet."""

    def check(self, sequence: int) -> bool:
        """Whether `accept` would take it; changes nothing. For before the tag is verified."""
        behind = self.highest - sequence
        if behind < 0:
            return True
        return behind < self._size and not self._blocks.get(sequence >> _BLOCK_SHIFT, 0) >> (sequence & _BLOCK_MASK) & 1

    def accept(self, sequence: int) -> bool:
        """Take note of an authenticated packet: True if it is new, False if it is a replay or too old."""
        block = sequence >> _BLOCK_SHIFT
        bit = 1 << (sequence & _BLOCK_MASK)
        blocks = self._blocks
        if sequence > self.highest:
            if block != self.highest >> _BLOCK_SHIFT:
                self._forget(block)
            self.highest = sequence
            blocks[block] = blocks.get(block, 0) | bit
            return True
        arrived = blocks.get(block, 0)
        if arrived & bit or self.highest - sequence >= self._size:
            return False
        blocks[block] = arrived | bit
        return True

    def _forget(self, newest: int) -> None:
        """Drop the blocks that lie wholly behind the window once block `newest` is its front."""
        front = self.highest >> _BLOCK_SHIFT
        if newest - front > self._reach:
            self._blocks.clear()
            return
        for block in range(front - self._reach, newest - self._reach):
            self._blocks.pop(block, None)
