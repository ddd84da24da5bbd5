"""Notices what the Node tells by its snapshot only: changed paths, renewed sessions, refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from omninervous.core.dataplane import PeerId
from omninervous.core.events import NodeSnapshot, PeerStatus, PeerUp
from omninervous.core.identity import wireguard_text
from omninervous.hostos.journal import Journal
from omninervous.wire.keytext import encode_key

__all__ = ["SHORT_KEY", "Watch", "short_name"]

SHORT_KEY = 8
"""Characters of a public key that make a peer recognisable."""
_REFUSALS = {
    "rate_limited": "more new sessions of one address than max_sessions_per_ip allows",
    "initiation_flood": "one key wanted sessions faster than any daemon does",
    "under_load": "more handshakes than this machine answers: senders are asked for a cookie",
    "unknown_initiator": "somebody wanted a session who is no member, or whom no Nucleus knows",
    "admission_full": "more unknown machines wanted a session than can be asked about at once",
    "replayed_initiation": "a copy of an earlier handshake, or a peer whose clock went back",
    "membership_wrong_cluster": "a membership of another cluster, or of another secret",
    "membership_bad_signature": "a membership that was not signed as it must be",
    "membership_not_yet_valid": "a membership from the future: its clock or ours is wrong",
    "membership_expired": "a membership that is over: its clock or ours is wrong",
}
"""Drops that are worth an event, and what causes them."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a peer that is up looked like."""

    endpoint: str
    path: str
    session: str


@dataclass(slots=True)
class Watch:
    """Compares snapshots, about one a second."""

    journal: Journal
    _peers: dict[PeerId, _Seen] = field(default_factory=dict)
    _drops: Mapping[str, int] = field(default_factory=dict)

    def begin(self, up: PeerUp) -> None:
        """A peer is up: from here on its path is compared."""
        self._peers[up.peer] = _Seen(str(up.endpoint), "", up.session_id.hex())

    def look(self, snapshot: NodeSnapshot) -> None:
        """Keep an event for what changed since the last look."""
        seen = {each.peer: _see(each) for each in snapshot.peers if each.state == "up"}
        for peer in snapshot.peers:
            before, now = self._peers.get(peer.peer), seen.get(peer.peer)
            if before is None or now is None:
                continue
            name = short_name(peer.identity, peer.peer)
            if before.endpoint != now.endpoint:
                changes = {"before": before.endpoint, "endpoint": now.endpoint, "path": now.path}
                self.journal.say("info", "path_changed", peer=name, **changes, cause="its packets come from there now")
            if before.session != now.session:
                self.journal.keep("info", "session_renewed", peer=name, session=now.session, cause="rekey")
        self._peers = seen
        for reason, cause in _REFUSALS.items():
            count = snapshot.drops.get(reason, 0) - self._drops.get(reason, 0)
            if count > 0:
                self.journal.keep("warning", "refused", reason=reason, count=count, cause=cause)
        self._drops = snapshot.drops


def _see(peer: PeerStatus) -> _Seen:
    session = next((each.session_id.hex() for each in peer.sessions if each.current), "")
    return _Seen(str(peer.endpoint), "" if peer.path is None else peer.path.kind, session)


def short_name(identity: bytes | None, x25519: bytes) -> str:
    """The beginning of a peer's public key."""
    return (encode_key(identity) if identity else wireguard_text(x25519))[:SHORT_KEY]
