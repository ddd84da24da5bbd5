"""What was tried to reach each peer, and what came back: the record that `omni why` reads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from omninervous.core.dataplane import PeerId
from omninervous.wire.address import Endpoint

__all__ = ["Trial", "Trials"]

PER_PEER = 16
"""Addresses; the one that was tried longest ago goes first."""


@dataclass(slots=True)
class Trial:
    """One address of one peer, since the daemon started. Times are boot-time seconds."""

    endpoint: Endpoint
    initiations: int = 0
    challenges: int = 0
    answers: int = 0
    tried_at: float = 0.0
    answered_at: float | None = None
    errno: int | None = None
    """The system's last refusal to send there."""


class Trials:
    """The record of all peers; it forgets a peer together with its machine."""

    def __init__(self) -> None:
        self._peers: dict[PeerId, OrderedDict[Endpoint, Trial]] = {}

    def initiation(self, boot: float, peer: PeerId, endpoints: Iterable[Endpoint]) -> None:
        """A handshake initiation leaves for these addresses."""
        for endpoint in endpoints:
            self._tried(boot, peer, endpoint).initiations += 1

    def challenge(self, boot: float, peer: PeerId, endpoint: Endpoint) -> None:
        """A challenge leaves."""
        self._tried(boot, peer, endpoint).challenges += 1

    def answer(self, boot: float, peer: PeerId, endpoint: Endpoint) -> None:
        """Something came back from there."""
        trial = self._trial(peer, endpoint)
        trial.answers += 1
        trial.answered_at, trial.errno = boot, None

    def refusal(self, endpoint: Endpoint, errno: int) -> None:
        """The system does not send to an address."""
        for trials in self._peers.values():
            if endpoint in trials:
                trials[endpoint].errno = errno

    def forget(self, peer: PeerId) -> None:
        """The peer goes."""
        self._peers.pop(peer, None)

    def of(self, peer: PeerId) -> tuple[Trial, ...]:
        """Copies, the newest last."""
        return tuple(replace(trial) for trial in self._peers.get(peer, {}).values())

    def _tried(self, boot: float, peer: PeerId, endpoint: Endpoint) -> Trial:
        trial = self._trial(peer, endpoint)
        trial.tried_at = boot
        self._peers[peer].move_to_end(endpoint)
        return trial

    def _trial(self, peer: PeerId, endpoint: Endpoint) -> Trial:
        trials = self._peers.setdefault(peer, OrderedDict())
        trial = trials.get(endpoint)
        if trial is None:
            trial = trials[endpoint] = Trial(endpoint)
            if len(trials) > PER_PEER:
                trials.popitem(last=False)
        return trial
