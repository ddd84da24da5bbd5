"""Virtual IPs: which address an identity gets, which addresses anybody may have, and who keeps a disputed one."""

from __future__ import annotations

import hashlib
import re
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import NamedTuple

from omninervous.core.identity import key_hash
from omninervous.errors import UserError
from omninervous.wire.membership import MAX_DERIVATION, VipClaim

__all__ = [
    "DEFAULT_SUBNET",
    "MAX_PREFIX",
    "MIN_PREFIX",
    "Contender",
    "claim_problem",
    "derive_claim",
    "derive_vip",
    "derived_from",
    "parse_vip",
    "wins",
]

DEFAULT_SUBNET = IPv4Network("10.200.0.0/13")
MIN_PREFIX = 8
MAX_PREFIX = 30
VIP_LABEL = b"omninervous vip v1"

_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_DECIMAL = re.compile(r"[0-9]{1,2}", re.ASCII)


class Contender(NamedTuple):
    """One of two identities that claim the same address."""

    identity: bytes
    """Ed25519 public key."""
    explicit: bool
    """Its operator chose the address."""
    holds: bool
    """It holds the address now, and lives."""


def derive_vip(public: bytes, derivation: int, subnet: IPv4Network = DEFAULT_SUBNET) -> IPv4Address:
    """The address number `derivation` (0..0xFFFE) of an identity: never the network's or the broadcast address.

    address = network + 1 + (first 8 bytes of BLAKE2s(label || public key || derivation u16) mod (size - 2))
    """
    if not 0 <= derivation <= MAX_DERIVATION or not MIN_PREFIX <= subnet.prefixlen <= MAX_PREFIX:
        raise AssertionError(f"derivation {derivation} in {subnet}")
    digest = hashlib.blake2s(VIP_LABEL + public + derivation.to_bytes(2, "big")).digest()
    return subnet[1 + int.from_bytes(digest[:8], "big") % (subnet.num_addresses - 2)]


def derive_claim(public: bytes, derivation: int, subnet: IPv4Network = DEFAULT_SUBNET) -> VipClaim:
    """The claim to a derived address."""
    return VipClaim(derive_vip(public, derivation, subnet), subnet.prefixlen, derivation)


def derived_from(public: bytes, claim: VipClaim) -> bool:
    """Whether a claim that says it is derived really is; True for an explicit one. The claim has no `claim_problem`."""
    if claim.derivation is None:
        return True
    return claim.address == derive_vip(public, claim.derivation, _network(claim.address, claim.prefix))


def wins(a: Contender, b: Contender) -> bool:
    """Whether `a` gets the address that both claim. A strict order between different identities:

    1. an address that an operator chose beats a derived one;
    2. then the live holder keeps it (two can be live holders when two registries meet);
    3. then the lower key hash wins: the same everywhere, and not to be had by being early.

    The loser of a derived address takes its next derivation; the loser of an explicit one stays off the overlay.
    """
    return (not a.explicit, not a.holds, key_hash(a.identity)) < (not b.explicit, not b.holds, key_hash(b.identity))


def claim_problem(address: IPv4Address, prefix: int) -> str | None:
    """Why no machine may claim this address with this on-link prefix; None when it may."""
    if not MIN_PREFIX <= prefix <= MAX_PREFIX:
        return f"the prefix must be /{MIN_PREFIX} to /{MAX_PREFIX}, not /{prefix}"
    if address in _THIS_NETWORK:
        return '0.0.0.0/8 means "this network"'
    for name in ("multicast", "loopback", "link_local", "reserved"):
        if getattr(address, f"is_{name}"):
            return f"it is a {name.replace('_', '-')} address"
    network = _network(address, prefix)
    if address == network.network_address:
        return f"it is the address of the network {network} itself"
    return f"it is the broadcast address of {network}" if address == network.broadcast_address else None


def parse_vip(text: str) -> VipClaim:
    """The claim in `--vip ADDR[/LEN]`; without LEN the default subnet's. UserError says what is wrong."""
    address_text, slash, prefix_text = text.strip().partition("/")
    try:
        address = IPv4Address(address_text)
    except AddressValueError as error:
        raise UserError(
            f"--vip {text!r}: not an IPv4 address. Write for example 10.200.0.1 or 10.200.0.1/13."
        ) from error
    if slash and not _DECIMAL.fullmatch(prefix_text):
        raise UserError(f"--vip {text!r}: {prefix_text!r} is not a prefix length ({MIN_PREFIX} to {MAX_PREFIX}).")
    prefix = int(prefix_text) if slash else DEFAULT_SUBNET.prefixlen
    problem = claim_problem(address, prefix)
    if problem is not None:
        raise UserError(f"--vip {text!r}: {problem}. Choose a unicast address such as 10.200.0.1.")
    return VipClaim(address, prefix)


def _network(address: IPv4Address, prefix: int) -> IPv4Network:
    return IPv4Network((address, prefix), strict=False)
