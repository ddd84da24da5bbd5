"""The CAPS exchange of one session: ours until it is acknowledged, the peer's, and the lanes that follow from both.

    we -> peer   CAPS(token)         when the session can be used; again every second, five times, until acknowledged
    peer -> we   CAPS_ACK(token)     the peer can receive on every lane that it offered and that both have
    peer -> we   CAPS                we open our lanes for receiving *before* we acknowledge it

We send on lanes beside lane 0 once both have happened.
"""

from __future__ import annotations

from omninervous.core.clock import Now
from omninervous.core.context import Context
from omninervous.core.dataplane import Aead, OpenLanes, SendControl
from omninervous.core.noise import Transport
from omninervous.wire.control import TOKEN_SIZE, Caps, CapsAck
from omninervous.wire.transport import LANE_BASE, LANE_REFLEX

__all__ = ["REFLEX_SESSIONS", "CapsExchange"]

REFLEX_SESSIONS = 2048
"""Sessions that the kernel's lane has room for. Whose CAPS offered it and has none would lose what comes there."""
CAPS_INTERVAL = 1.0
CAPS_ATTEMPTS = 5


class CapsExchange:
    """CAPS of one session with an edge."""

    def __init__(self, ctx: Context, transport: Transport) -> None:
        self._ctx = ctx
        self._transport = transport
        self._ours: Caps | None = None
        self._sent = 0
        self._sent_at = 0.0
        self._acknowledged = False
        self.theirs: Caps | None = None
        """What the peer can do; None until it said so."""
        self.lanes: tuple[int, ...] = (LANE_BASE,)
        """Lanes we send on."""
        self.aead = Aead.CHACHA20_POLY1305
        """What our frames are sealed with."""

    def new_token(self) -> bytes:
        """For the CAPS given to `offer`."""
        return self._ctx.entropy(TOKEN_SIZE)

    def offer(self, now: Now, ours: Caps, *, at_once: bool) -> None:
        """Our CAPS; again later with other contents when something in them changed. They are sent now or, as long as
        an unproven path could not carry them, with the next `repeat`."""
        self._ours = ours
        self._sent = 0
        self._acknowledged = False
        self._open()
        if at_once:
            self._send(now)

    @property
    def settled(self) -> bool:
        """Whether `repeat` has nothing more to do."""
        return self._acknowledged or self._ours is None or self._sent >= CAPS_ATTEMPTS

    def repeat(self, now: Now, *, at_once: bool = False) -> None:
        """Called about once a second, and when the path has just been proven (`at_once`)."""
        if self._acknowledged or self._ours is None:
            return
        if at_once or (self._sent < CAPS_ATTEMPTS and now.boot - self._sent_at >= CAPS_INTERVAL):
            self._send(now)

    def handle_caps(self, caps: Caps) -> None:
        """The peer's CAPS, already found acceptable."""
        self.theirs = caps
        self._open()
        self._ctx.commands.append(SendControl(self._transport.local_index, CapsAck(caps.token).encode()))
        self._agree()

    def _open(self) -> None:
        """Receive on all lanes that both have; those that are open stay so."""
        found = () if self.theirs is None else self._receiving(self.theirs)
        lanes = tuple(self._transport.lane_keys(lane, aead) for lane, aead in found)
        if lanes:
            self._ctx.commands.append(OpenLanes(self._transport.local_index, lanes, tx=()))

    def handle_ack(self, token: bytes) -> None:
        """CAPS_ACK; another token's is an old one."""
        if self._ours is not None and token == self._ours.token:
            self._acknowledged = True
            self._agree()

    def _agree(self) -> None:
        if self.theirs is None or not self._acknowledged:
            return
        sending = self._receiving(self.theirs)
        if sending:
            self.lanes = (LANE_BASE, *(lane for lane, _ in sending))
            self.aead = sending[0][1]
            self._ctx.commands.append(OpenLanes(self._transport.local_index, (), tx=self.lanes[1:]))

    def _receiving(self, caps: Caps) -> tuple[tuple[int, Aead], ...]:
        # A lane has one key pair for both directions' state: it opens only if both sides have it, and an AEAD for it.
        offered = 0 if self._ours is None else self._ours.lanes & caps.lanes
        both = tuple(lane for lane in self._ctx.lanes if lane != LANE_BASE and offered >> lane & 1)
        chosen = ((lane, self._aead(lane, caps)) for lane in both)
        return tuple((lane, aead) for lane, aead in chosen if aead is not None)

    def _aead(self, lane: int, caps: Caps) -> Aead | None:
        if lane == LANE_REFLEX:
            return Aead.CHACHA20_POLY1305
        fastest_first = (Aead.AES_256_GCM, Aead.CHACHA20_POLY1305)
        ours = self._ctx.config.aeads
        return next((aead for aead in fastest_first if aead in ours and caps.aeads >> aead.value & 1), None)

    def _send(self, now: Now) -> None:
        assert self._ours is not None
        self._sent += 1
        self._sent_at = now.boot
        self._ctx.commands.append(SendControl(self._transport.local_index, self._ours.encode()))
