"""The port that every Synapse engine fulfils.

Python hands over keys, endpoints and policy in batches of commands and takes back batches of events. Packets of
established sessions never cross this line. An engine runs by itself (its own threads, or the kernel): when the
control coroutine stalls, established traffic goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from omninervous.core.dataplane import Command, Event, SessionActivity

__all__ = ["Synapse"]


class Synapse(Protocol):
    """One running data plane: a TAP on one side, UDP sockets on the other."""

    name: str
    """`reference`, `native`, ...: shown by `omni status`."""

    def fileno(self) -> int:
        """A descriptor that is readable while `events()` has something to give."""
        ...

    def submit(self, commands: Sequence[Command]) -> None:
        """Carry out commands in order. Never blocks; a command about an unknown peer or session is ignored."""
        ...

    def events(self) -> Sequence[Event]:
        """All events since the last call. The queue is bounded: when it overflows, the newest slow-path *frames*
        are dropped and counted (`event_overflow`), never a SessionConfirmed."""
        ...

    def activity(self) -> Sequence[SessionActivity]:
        """What installed sessions have done so far; one that has done nothing since the last call may be left out."""
        ...

    def counters(self) -> Mapping[str, int]:
        """Totals since start: `rx_packets`, `rx_bytes`, `tx_packets`, `tx_bytes`, and `drop_<reason>` each."""
        ...

    def learned(self) -> Mapping[bytes, float]:
        """Peer MACs from which a frame was really delivered here, with the boot-time second of the newest."""
        ...

    def close(self) -> None:
        """Stop, wipe all keys. The descriptors handed to the engine stay with their owner. Idempotent."""
        ...
