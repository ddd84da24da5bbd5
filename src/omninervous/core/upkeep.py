"""Keeping the path to one edge: when it is measured, asked after, and kept open.

| at a tick (1 s)                                     | what is done                                           |
|-----------------------------------------------------|--------------------------------------------------------|
| data was sent, and nothing came for 0.3 s           | the endpoint is challenged: is it there?               |
| data flowed within 10 s                             | the endpoint and others are measured, every 10 s       |
| the peer, with which data flows, challenges us      | the endpoint is challenged: does ours arrive there?    |
| silence for as long as the NATs on the way forgive  | the endpoint is challenged, which keeps them open      |
| data flows, on a new path, and then once a minute   | full frames are tried (`pathmtu.py`)                   |

A challenge that is not answered in time becomes a doubt (`paths.py`), and that a lost path.
"""

from __future__ import annotations

from omninervous.core.clock import Now
from omninervous.core.context import Context
from omninervous.core.dataplane import PeerId
from omninervous.core.lifetime import BindingLifetime
from omninervous.core.liveness import Liveness
from omninervous.core.pathmtu import PathMtu
from omninervous.core.paths import Paths
from omninervous.errors import RemoteError
from omninervous.wire.address import Endpoint
from omninervous.wire.control import PathResponse

__all__ = ["MEASURE_AFTER_DATA", "Upkeep"]

MEASURE_AFTER_DATA = 10.0
TURNS = 0.1
"""Share of the interval that is left to chance: both sides take turns."""


class Upkeep:
    """See the module's text. `index` is the session that sends."""

    def __init__(self, ctx: Context, peer: PeerId, paths: Paths, liveness: Liveness) -> None:
        self._ctx = ctx
        self._peer = peer
        self._paths = paths
        self._liveness = liveness
        self._size = PathMtu(ctx)
        self._lifetime = BindingLifetime()
        self._asked_after: float | None = None
        """The silence before the challenge that waits for its answer."""
        self._patience = self._draw()

    @property
    def interval(self) -> float:
        """Seconds of silence that the path is known to forgive."""
        return self._lifetime.interval

    @property
    def mtu(self) -> int | None:
        """Bytes of an IP packet that the path carries; None: enough, as far as is known."""
        return self._size.mtu

    @property
    def keepalive_at(self) -> float:
        """When the silence on a proven path has lasted long enough."""
        return self._liveness.packet_at + self._lifetime.interval * self._patience

    def tick(self, now: Now, index: int) -> None:
        """See the table."""
        if self._liveness.unanswered(now.boot):
            self._paths.verify(now, index)
        elif self._liveness.carries_data(now.boot, MEASURE_AFTER_DATA):
            self._paths.measure(now, index)
        elif self._paths.proven and now.boot >= self.keepalive_at:
            self._asked_after = self._liveness.silence(now.boot)
            self._patience = self._draw()
            self._paths.verify(now, index)
        if not self._paths.proven or self._paths.doubted:
            self._size.pause()
        elif self._paths.endpoint is not None and self._liveness.carries_data(now.boot, MEASURE_AFTER_DATA):
            self._size.tick(now, index, self._paths.endpoint)

    def forget(self) -> None:
        """The peer goes."""
        self._size.forget()

    def handle_timeout(self, now: Now, index: int | None) -> bool:
        """Challenges that are due; True if the path is lost."""
        lost = self._paths.handle_timeout(now, index)
        if self._asked_after is not None and (lost or self._paths.doubted):
            self._lifetime.handle_silence(now.boot, self._asked_after)
            self._asked_after = None
        if lost:
            self._ctx.count("paths_lost")
            self._paths.distrust()
        return lost

    def handle_response(self, now: Now, index: int, message: PathResponse) -> None:
        """RemoteError if it answers nothing."""
        if self._size.handle_response(now, message.token):
            return
        target = self._paths.handle_response(now, index, message.token)
        if target is None:
            raise RemoteError("path_response")
        if message.observed is not None:
            self._ctx.note_view(self._peer, target, message.observed)
        if self._asked_after is not None and not self._paths.doubted:
            self._lifetime.handle_answer(now.boot, self._asked_after)
            self._asked_after = None

    def handle_challenge(self, now: Now, index: int, source: Endpoint, size: int, *, in_use: bool) -> None:
        """The peer challenges us: perhaps because nothing of ours arrives, so our endpoint is to be asked after."""
        self._paths.handle_challenge(now, index, source, size, in_use=in_use)
        if in_use and self._liveness.carries_data(now.boot, MEASURE_AFTER_DATA):
            self._paths.verify(now, index, unless_answered_within=1.0)

    def handle_session(self, now: Now) -> None:
        """A handshake came through."""
        self._lifetime.handle_found(now.boot)

    def network_changed(self, now: Now, index: int) -> None:
        """Other NATs may be on the way now."""
        self._lifetime = BindingLifetime()
        self._asked_after = None
        self._paths.network_changed(now, index)

    def _draw(self) -> float:
        return 1.0 - self._ctx.jitter(TURNS)
