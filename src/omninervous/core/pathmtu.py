"""How large a packet the path to an edge carries, found out by trying (RFC 8899, section 5).

A hop in the middle that takes less than our own network card drops what is larger. Its ICMP message is not believed,
for anybody could forge it, and often there is none: pings pass, and streams stand still. So while data flows, a
PATH_CHALLENGE is padded to the size of a full frame, when a path is new and then once a minute:

| what comes                          | what follows                                                              |
|-------------------------------------|---------------------------------------------------------------------------|
| its answer                          | packets of this size pass                                                 |
| none, while the path works, `TRIES` | the next smaller size; frames that do not fit go in pieces from now on    |
| another path                        | from the beginning                                                        |
"""

from __future__ import annotations

from omninervous.core.clock import Now
from omninervous.core.context import Context
from omninervous.core.dataplane import SendControl
from omninervous.wire.address import Endpoint
from omninervous.wire.control import TOKEN_SIZE, PathChallenge
from omninervous.wire.frame import ETHERNET_HEADER_SIZE
from omninervous.wire.transport import MIN_TRANSPORT_SIZE

__all__ = ["STEPS", "TRIES", "VERIFY_EVERY", "PathMtu"]

TRIES = 4
"""On a path that loses a tenth each way, one round in 700 takes it for narrow, for a minute."""
TRY_EVERY = 0.9
"""Seconds, however often `tick` is called: a little less than what lies between two ticks of a peer with data."""
VERIFY_EVERY = 60.0
STEPS = (1500, 1280)
"""Bytes of an IP packet that are tried when a full frame does not pass; every IPv6 path has the last (RFC 8200)."""
_KIND = 1


class PathMtu:
    """The size of one peer's path. `mtu` is what the engine is to be told."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.mtu: int | None = None
        """Bytes of an IP packet; None: full frames pass, as far as is known."""
        self._path: Endpoint | None = None
        self._step = 0
        self._tries = 0
        self._token: bytes | None = None
        """Of this step: any of its challenges may be answered."""
        self._again_at = 0.0

    def tick(self, now: Now, index: int, path: Endpoint) -> None:
        """Data flows, on a path that works."""
        if path != self._path:
            self.forget()
            self._path = path
        if now.boot < self._again_at:
            return
        sizes = self._sizes(path)
        if self._tries >= TRIES:
            self._step, self._tries, self._token = self._step + 1, 0, None
            if self.mtu is None or self.mtu > sizes[self._step]:
                self._found(sizes[self._step])
            if self._step == len(sizes) - 1:
                self._settle(now.boot + VERIFY_EVERY)
                return
        self._try(index, path, sizes[self._step])
        self._again_at = now.boot + TRY_EVERY

    def forget(self) -> None:
        """The path is another one, or the peer goes."""
        self._found(None)
        self._settle(0.0)

    def pause(self) -> None:
        """Whether the path works is being found out: what is not answered now says nothing about sizes."""
        self._tries = 0

    def handle_response(self, now: Now, token: bytes) -> bool:
        """Whether the token is ours."""
        if token != self._token or self._path is None:
            return False
        self._found(None if self._step == 0 else self._sizes(self._path)[self._step])
        self._settle(now.boot + VERIFY_EVERY)
        return True

    def _sizes(self, path: Endpoint) -> tuple[int, ...]:
        frame = self._ctx.config.mtu + ETHERNET_HEADER_SIZE
        full = path.overhead + MIN_TRANSPORT_SIZE + _KIND + frame
        return (full, *(step for step in STEPS if step < full))

    def _try(self, index: int, path: Endpoint, size: int) -> None:
        if self._token is None:
            self._token = self._ctx.entropy(TOKEN_SIZE)
        self._tries += 1
        bare = PathChallenge(self._token, padding=1)
        room = size - path.overhead - MIN_TRANSPORT_SIZE
        padded = PathChallenge(self._token, padding=room - len(bare.encode()) + 1)
        self._ctx.commands.append(SendControl(index, padded.encode(), path))

    def _settle(self, again_at: float) -> None:
        self._step = self._tries = 0
        self._token = None
        self._again_at = again_at

    def _found(self, mtu: int | None) -> None:
        if mtu == self.mtu:
            return
        self.mtu = mtu
        subject = str(self._path)
        if mtu is None:
            self._ctx.solved("path_mtu", subject)
            return
        self._ctx.count("paths_narrow")
        text = (
            f"on the way to {self._path} large packets are lost, so frames of full size go in pieces of {mtu} bytes: a "
            "smaller --mtu on all machines may save that"
        )
        self._ctx.problem("path_mtu", text, subject)
