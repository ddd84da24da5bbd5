"""What follows from this machine's identity, without a daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omninervous.core.identity import Identity, mac_of, ula_of, wireguard_text
from omninervous.core.vip import DEFAULT_SUBNET, derive_vip
from omninervous.errors import SystemFailure
from omninervous.hostos.state import StateDir
from omninervous.wire.address import format_mac
from omninervous.wire.keytext import encode_key

__all__ = ["describe_identity"]


def describe_identity(state_dir: Path) -> dict[str, Any]:
    """The object of `omni identity --json`."""
    seed = StateDir(state_dir).load_seed()
    if seed is None:
        raise SystemFailure(f"there is no identity in {state_dir}: make one with omni-daemon --init")
    own = Identity.from_seed(seed)
    return {
        "identity": encode_key(own.public),
        "wireguard_public_key": wireguard_text(own.x25519_public),
        "mac": format_mac(mac_of(own.public)),
        "ula": str(ula_of(own.public)),
        "vip": f"{derive_vip(own.public, 0)}/{DEFAULT_SUBNET.prefixlen}",
        "state_dir": str(state_dir),
    }
