"""The descriptor and the lock that an engine's thread shares with its users."""

from __future__ import annotations

import select
import threading

from omninervous.synapse.wakeup import FairLock, Signal


def readable(signal: Signal) -> bool:
    return bool(select.select([signal], [], [], 0)[0])


def test_a_signal_is_readable_while_set() -> None:
    signal = Signal()
    assert not readable(signal)
    signal.set()
    signal.set()
    assert readable(signal)
    signal.clear()
    assert not readable(signal)
    signal.clear()
    signal.set()
    assert readable(signal)
    signal.close()


def test_a_closed_signal_has_no_descriptor_and_does_nothing() -> None:
    signal = Signal()
    signal.close()
    signal.close()
    signal.set()
    signal.clear()
    assert signal.fileno() == -1


def test_a_busy_thread_cannot_starve_a_waiting_one() -> None:
    lock = FairLock()
    done = threading.Event()

    def hog() -> None:
        while not done.is_set():
            with lock:
                sum(range(1000))

    thread = threading.Thread(target=hog)
    thread.start()
    for _ in range(20):
        with lock:
            pass
    done.set()
    thread.join()
