"""Two small things that an engine thread and its users share: a descriptor to wait on, and a fair lock."""

from __future__ import annotations

import contextlib
import os
import threading
from types import TracebackType

__all__ = ["FairLock", "Signal"]


class Signal:
    """A flag with a descriptor that is readable while the flag is set: an eventfd, or a pipe where there is none."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self._read = self._write = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._read, self._write = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self._write, False)
        self._set = False

    def fileno(self) -> int:
        """The descriptor; -1 after `close`."""
        return self._read

    def set(self) -> None:
        """Make the descriptor readable."""
        if not self._set and self._write >= 0:
            self._set = True
            os.write(self._write, (1).to_bytes(8, "little"))

    def clear(self) -> None:
        """Make it unreadable."""
        if self._set and self._read >= 0:
            self._set = False
            with contextlib.suppress(BlockingIOError):
                os.read(self._read, 8)

    def close(self) -> None:
        """Idempotent."""
        for descriptor in {self._read, self._write} - {-1}:
            os.close(descriptor)
        self._read = self._write = -1


class FairLock:
    """A mutual exclusion in which a busy thread cannot starve a waiting one.

    A plain lock goes to whoever asks first after its release, and a thread that releases and asks again in a loop
    nearly always wins. Here whoever waits for the lock holds the turnstile, so the busy thread queues behind.
    """

    def __init__(self) -> None:
        self._turnstile = threading.Lock()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._turnstile:
            self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
