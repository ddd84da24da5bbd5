"""WireGuard's activity-driven timers for one peer (the WireGuard paper, 6), from what the engine reports each second.

| condition                                           | consequence                                   |
|-----------------------------------------------------|-----------------------------------------------|
| data came and nothing was sent for 10 s since       | a keepalive                                   |
| data was sent and nothing came for 15 s since       | the peer is silent: a new handshake           |
| data was sent and nothing came for 0.3 s            | an edge is asked whether it is there          |
| nothing was sent or came, and the link is kept      | the same, for the NATs on the way             |

"Data" excludes keepalives and control messages, or two silent sides would keep each other awake. How long a silence the
NATs on the way forgive is learned (`lifetime.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from omninervous.core.dataplane import SessionActivity

__all__ = ["KEEPALIVE_PASSIVE", "KEEPALIVE_PERSISTENT", "SILENT_AFTER", "UNANSWERED_AFTER", "Liveness", "Traffic"]

KEEPALIVE_PASSIVE = 10.0
SILENT_AFTER = 15.0
KEEPALIVE_PERSISTENT = 25.0
"""To a stock peer: WireGuard's usual value."""
UNANSWERED_AFTER = 0.3


@dataclass(slots=True)
class Traffic:
    """Totals of a peer over all its sessions."""

    rx_packets: int = 0
    rx_bytes: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0


class Liveness:
    """When a peer was last heard and spoken to. Times are boot-time seconds, 0.0 = never."""

    def __init__(self) -> None:
        self.tx_at = 0.0
        self.rx_at = 0.0
        self.data_at = 0.0
        """Newest data in either direction, or handshake."""
        self._tx_data_at = 0.0
        self._rx_data_at = 0.0
        self._owes_answer_since: float | None = None
        self._awaits_answer_since: float | None = None
        self._by_session: dict[int, SessionActivity] = {}
        self._closed = Traffic()

    def handle_activity(self, activity: SessionActivity) -> None:
        """The engine's newest report on one session."""
        self._by_session[activity.local_index] = activity
        self.tx_at = max(self.tx_at, activity.tx_at)
        self.rx_at = max(self.rx_at, activity.rx_at)
        self._tx_data_at = max(self._tx_data_at, activity.tx_data_at)
        self._rx_data_at = max(self._rx_data_at, activity.rx_data_at)
        self.data_at = max(self.data_at, self._tx_data_at, self._rx_data_at)

    def handle_handshake(self, now_boot: float) -> None:
        """A handshake ended well: both sides have just been heard."""
        self.tx_at = max(self.tx_at, now_boot)
        self.rx_at = max(self.rx_at, now_boot)
        self.data_at = max(self.data_at, now_boot)
        self._owes_answer_since = self._awaits_answer_since = None

    def handle_removed(self, local_index: int) -> None:
        """A session is gone; its totals stay."""
        last = self._by_session.pop(local_index, None)
        if last is not None:
            _add(self._closed, last)

    def silence(self, now_boot: float) -> float:
        """Seconds without a packet in either direction."""
        return now_boot - self.packet_at

    def unanswered(self, now_boot: float) -> bool:
        """Whether data was sent, and nothing came for longer than an answer usually takes."""
        return self._tx_data_at > self.rx_at and now_boot - self.rx_at >= UNANSWERED_AFTER

    def used(self, now_boot: float, seconds: float) -> bool:
        """Whether there was data, or a handshake, within so many seconds."""
        return now_boot - self.data_at < seconds

    def carries_data(self, now_boot: float, seconds: float) -> bool:
        """Whether data was sent or came within so many seconds."""
        newest = max(self._tx_data_at, self._rx_data_at)
        return newest > 0.0 and now_boot - newest < seconds

    @property
    def idle(self) -> bool:
        """Whether neither side owes the other an answer, as of the last `keepalive_due` and `silent`."""
        return self._owes_answer_since is None and self._awaits_answer_since is None

    @property
    def packet_at(self) -> float:
        """The newest packet in either direction."""
        return max(self.tx_at, self.rx_at)

    def keepalive_due(self, now_boot: float, *, persistent: bool) -> bool:
        """Whether to send a keepalive now: owed for data, or `persistent`, because a binding may end."""
        if self._rx_data_at <= self.tx_at:
            self._owes_answer_since = None
        elif self._owes_answer_since is None or self._owes_answer_since <= self.tx_at:
            self._owes_answer_since = self._rx_data_at
        owed = self._owes_answer_since is not None and now_boot - self._owes_answer_since >= KEEPALIVE_PASSIVE
        if owed or (persistent and now_boot - self.tx_at >= KEEPALIVE_PERSISTENT):
            self.tx_at = now_boot
            self._owes_answer_since = None
            return True
        return False

    def silent(self, now_boot: float) -> bool:
        """Whether the peer gives no sign of life although it should: it answers data within SILENT_AFTER seconds."""
        if self._tx_data_at <= self.rx_at:
            self._awaits_answer_since = None
        elif self._awaits_answer_since is None or self._awaits_answer_since <= self.rx_at:
            self._awaits_answer_since = self._tx_data_at
        return self._awaits_answer_since is not None and now_boot - self._awaits_answer_since >= SILENT_AFTER

    def totals(self) -> Traffic:
        """Over all sessions, past ones too."""
        total = Traffic(self._closed.rx_packets, self._closed.rx_bytes, self._closed.tx_packets, self._closed.tx_bytes)
        for activity in self._by_session.values():
            _add(total, activity)
        return total


def _add(total: Traffic, activity: SessionActivity) -> None:
    """Add one session's totals."""
    total.rx_packets += activity.rx_packets
    total.rx_bytes += activity.rx_bytes
    total.tx_packets += activity.tx_packets
    total.tx_bytes += activity.tx_bytes
