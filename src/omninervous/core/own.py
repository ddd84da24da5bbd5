"""Our own place in the fabric: the address we claim, whether we hold it, and the membership that says so.

| state              | event                           | next                                                         |
|--------------------|---------------------------------|--------------------------------------------------------------|
| claimed            | granted()                       | held (VipAssigned)                                           |
| claimed, held      | taken(), derived                | claimed: the next derivation (VipLost if it was held)        |
| claimed            | taken(), explicit               | refused (VipRefused)                                         |
| held               | taken(), explicit               | refused (VipLost, VipRefused)                                |
| refused            | granted()                       | held                                                         |

A membership is issued when it is first needed, again when the claim changes, and again at half of its life.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address

from omninervous.core.clock import Now
from omninervous.core.context import Context
from omninervous.core.events import PersistSerial, PersistVip, VipAssigned, VipLost, VipRefused
from omninervous.core.identity import ULA_NETWORK
from omninervous.core.membership import VALIDITY, issue
from omninervous.core.pathkind import address_of
from omninervous.core.vip import Contender, derive_claim, wins
from omninervous.wire.address import Endpoint
from omninervous.wire.control import OUR_VERSIONS, Caps
from omninervous.wire.keytext import encode_key
from omninervous.wire.membership import MAX_DERIVATION, VipClaim
from omninervous.wire.payload import PayloadKind
from omninervous.wire.transport import LANE_BASE, LANE_REFLEX

__all__ = ["OwnAddress"]

_KINDS = (PayloadKind.ETHERNET, PayloadKind.ETHERNET_PARTIAL, PayloadKind.FRAGMENT, PayloadKind.CONTROL)
_KINDS_BITMAP = sum(1 << kind for kind in _KINDS)


class OwnAddress:
    """Our VIP and our membership."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.mac = ctx.identity.mac
        self.ula: IPv6Address = ctx.identity.ula
        self.claim: VipClaim = ctx.config.claim or self._derived(ctx.config.derivation)
        """The address we want."""
        self.held = False
        """We may use it."""
        self.refused_by: bytes | None = None
        """Ed25519 key of the holder of our explicit address."""
        self._serial = ctx.config.serial_mark
        self._membership: bytes | None = None
        self._issued_at = 0.0

    @property
    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """What omni0 answers to."""
        return (self.claim.address, self.ula) if self.held else (self.ula,)

    def inside(self, endpoint: Endpoint) -> bool:
        """Whether this address is in the overlay: the kernel would send to omni0, and a path that leads through itself
        ends nowhere. A network of the underlay inside of ours is the narrower one, and goes first."""
        address = address_of(endpoint.host)
        if isinstance(address, IPv6Address):
            return address in ULA_NETWORK
        network = IPv4Network((self.claim.address, self.claim.prefix), strict=False)
        return address in network and not any(
            address in each for each in self._ctx.networks if isinstance(each, IPv4Network)
        )

    # ------------------------------------------------------------ the address

    def granted(self) -> bool:
        """Nobody stronger holds the address. True if it is new."""
        if self.held:
            return False
        self.held = True
        self.refused_by = None
        self._ctx.events.append(VipAssigned(self.claim.address, self.claim.prefix, self.claim.derivation))
        self._ctx.events.append(PersistVip(self.claim.derivation))
        self._ctx.solved("vip_conflict")
        return True

    def taken(self, holder: bytes) -> None:
        """Somebody with a stronger claim holds the address; `holder` is its Ed25519 key."""
        ctx, address = self._ctx, self.claim.address
        if self.held:
            self.held = False
            ctx.events.append(VipLost(address, holder))
        if self.claim.derivation is not None:
            self.claim = self._derived((self.claim.derivation + 1) % (MAX_DERIVATION + 1))
            self._membership = None
            return
        if self.refused_by != holder:
            self.refused_by = holder
            ctx.events.append(VipRefused(address, holder))
            ctx.problem(
                "vip_conflict",
                f"{address} is held by {encode_key(holder)}, so this machine stays without: choose another --vip, or "
                "stop that machine",
            )

    def withdraw(self, holder: bytes) -> None:
        """Give the address up without taking another one."""
        if self.held:
            self.held = False
            self._ctx.events.append(VipLost(self.claim.address, holder))

    def beaten_by(self, identity: bytes, claim: VipClaim, *, live: bool) -> bool:
        """Whether somebody else's claim to our address is the stronger one."""
        if claim.address != self.claim.address:
            return False
        ours = Contender(self._ctx.identity.public, self.claim.explicit, holds=self.held)
        return wins(Contender(identity, claim.explicit, holds=live), ours)

    def _derived(self, derivation: int) -> VipClaim:
        return derive_claim(self._ctx.identity.public, derivation)

    # ------------------------------------------------------------ the membership

    def membership(self, now: Now) -> bytes | None:
        """The membership for the present claim; None without a cluster."""
        cluster = self._ctx.config.cluster
        if cluster is None:
            return None
        if self._membership is None or self.renewal_due(now):
            # Wall time as a floor keeps serials growing even if the mark of earlier runs was lost.
            self._serial = max(self._serial + 1, int(now.wall))
            self._ctx.events.append(PersistSerial(self._serial))
            self._issued_at = now.wall
            config, identity = self._ctx.config, self._ctx.identity
            self._membership = issue(identity, cluster, self.claim, config.name or None, self._serial, now.wall)
        return self._membership

    def renewal_due(self, now: Now) -> bool:
        """Half of the membership's life is over, or the clock went back behind its beginning."""
        return self._membership is not None and not self._issued_at <= now.wall < self._issued_at + VALIDITY / 2

    def caps(self, now: Now, token: bytes, *, member: bool, reflex: bool = True) -> Caps:
        """What we tell a peer about ourselves. A member learns our membership, a pair our key and address. `reflex`:
        the kernel's lane has room for one more session."""
        config = self._ctx.config
        lanes = 1 << LANE_BASE
        for lane in self._ctx.lanes:
            lanes |= 1 << lane if reflex or lane != LANE_REFLEX else 0
        membership = self.membership(now) if member else None
        return Caps(
            versions=OUR_VERSIONS,
            boot_id=config.boot_id,
            payload_kinds=_KINDS_BITMAP,
            aeads=sum(1 << aead.value for aead in config.aeads),
            lanes=lanes,
            mtu=config.mtu,
            token=token,
            membership=membership,
            vip=self.claim if membership is None and self.held else None,
            identity=None if membership is not None else self._ctx.identity.public,
            clock=int(now.wall),
        )
