"""Why there is a direct path to a peer, or none: the likely cause and the remedy, in words."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

from omninervous.core.events import NodeSnapshot, PeerStatus
from omninervous.core.natview import Mapping
from omninervous.core.trials import Trial

__all__ = ["Diagnosis", "diagnose"]

_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    cause: str
    remedy: str
    """Empty when nothing is wrong."""


def diagnose(peer: PeerStatus, trials: Sequence[Trial], snapshot: NodeSnapshot, mapping: Mapping) -> Diagnosis:
    """The first rule that fits; the surest come first."""
    if peer.state == "up" and peer.path is not None and peer.proven:
        return Diagnosis(f"there is a direct path, over {peer.path.kind}", "")
    told = next((each for each in snapshot.problems if each.subject == peer.peer.hex()), None)
    if told is not None:
        return Diagnosis(told.text, "see the cause")
    if not trials:
        return _untried(peer, snapshot)
    answered = [each for each in trials if each.answered_at is not None and each.answered_at >= each.tried_at]
    if answered:
        return Diagnosis(f"it answers from {answered[-1].endpoint}, and the session is being made", "wait a moment")
    return _unanswered(trials, snapshot, mapping)


def _untried(peer: PeerStatus, snapshot: NodeSnapshot) -> Diagnosis:
    if peer.state == "idle":
        return Diagnosis("nothing has asked for it yet", "omni ping it, or send it a packet")
    if any(each.registered for each in snapshot.nuclei):
        return Diagnosis("no address of it is known: the Nucleus does not name it now", "start omni-daemon over there")
    if snapshot.nuclei:
        return Diagnosis("no Nucleus answers, and no address of it is known", "see the Nucleus's hint in omni status")
    return Diagnosis("no address of it is known", "give its --endpoint, or wait until it calls")


def _unanswered(trials: Sequence[Trial], snapshot: NodeSnapshot, mapping: Mapping) -> Diagnosis:
    if all(each.errno in _NO_ROUTE for each in trials):
        return Diagnosis("this machine has no route to any of its addresses", "check this machine's network")
    if all(":" in each.endpoint.host or each.errno in _NO_ROUTE for each in trials):
        return Diagnosis(
            "only IPv6 addresses of it can be tried, and none answers",
            "check that both machines have IPv6, or give it IPv4",
        )
    if mapping is Mapping.ADDRESS_DEPENDENT:
        return Diagnosis(
            "our NAT uses another port for each destination, and its NAT or firewall lets in known ports only",
            "forward a UDP port to one of the two machines, use IPv6, or another router",
        )
    if snapshot.nuclei and not any(each.registered for each in snapshot.nuclei):
        return Diagnosis("nothing came back, and no Nucleus can ask it to open its NAT", "see its hint in omni status")
    return Diagnosis(
        f"nothing came back from {len(trials)} addresses: it is off, a firewall stops UDP, or both NATs use another "
        "port for each destination",
        "look whether it runs; omni netcheck on both machines; allow or forward its UDP port",
    )
