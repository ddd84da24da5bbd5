"""What two edges should have alike: the MTU of omni0, and the time. The operator is told; nothing is refused."""

from __future__ import annotations

from omninervous.core.clock import Now
from omninervous.core.context import Context
from omninervous.core.dataplane import PeerId
from omninervous.wire.control import Caps

__all__ = ["CLOCK_TOLERANCE", "note_differences"]

CLOCK_TOLERANCE = 120
"""Seconds; a CAPS may have travelled for a few. Memberships allow for a day (`core.membership.CLOCK_SKEW`)."""
_HALF_RANGE = 1 << 31


def note_differences(ctx: Context, now: Now, peer: PeerId, caps: Caps) -> None:
    """Compare a peer's CAPS with ours."""
    subject = peer.hex()
    if caps.mtu == ctx.config.mtu:
        ctx.solved("mtu_differs", subject)
    else:
        text = f"a peer's omni0 has MTU {caps.mtu}, this machine's {ctx.config.mtu}: give all machines the same --mtu"
        ctx.problem("mtu_differs", text, subject)
    if caps.clock is None:
        return
    ahead = (caps.clock - int(now.wall) + _HALF_RANGE) % (2 * _HALF_RANGE) - _HALF_RANGE
    if abs(ahead) <= CLOCK_TOLERANCE:
        ctx.solved("clock_differs", subject)
        return
    # Rounded, so that each session's CAPS does not make another sentence.
    size = f"{abs(ahead) / 3600:.0f} h" if abs(ahead) >= 3600 else f"{abs(ahead) / 60:.0f} min"
    text = (
        f"a peer's clock is {size} {'ahead of' if ahead > 0 else 'behind'} this machine's: compare both with the true "
        f"time and let NTP keep them (timedatectl set-ntp true)"
    )
    ctx.problem("clock_differs", text, subject)
