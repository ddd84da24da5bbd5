"""Everything that follows from an Ed25519 key."""

from __future__ import annotations

import base64
import json
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from omninervous.core.identity import (
    FIELD_PRIME,
    ULA_NETWORK,
    Identity,
    key_hash,
    parse_peer,
    synthetic_mac,
    verify,
    wireguard_text,
    x25519_of,
)
from omninervous.core.vip import derive_vip
from omninervous.errors import RemoteError, UserError
from omninervous.wire.keytext import encode_key

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
CASES = json.loads((VECTORS / "identity.json").read_text())["cases"]
IDENTITY = Identity.from_seed(bytes(range(32)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["source"])
def test_derivations_never_change(case: dict[str, Any]) -> None:
    identity = Identity.from_seed(bytes.fromhex(case["seed"]))
    assert identity.public.hex() == case["public"]
    assert identity.x25519_private.hex() == case["x25519_private"]
    assert identity.x25519_public.hex() == case["x25519_public"]
    assert identity.text == case["text"]
    assert identity.mac.hex(":") == case["mac"]
    assert synthetic_mac(identity.x25519_public).hex(":") == case["synthetic_mac_of_x25519"]
    assert str(identity.ula) == case["ula"]
    assert key_hash(identity.public).hex() == case["key_hash"]
    for derivation, vip in case["vips"]:
        assert str(derive_vip(identity.public, derivation)) == vip


def test_public_and_private_halves_map_to_one_x25519_pair() -> None:
    for number in range(50):
        identity = Identity.from_seed(number.to_bytes(32, "big"))
        derived = X25519PrivateKey.from_private_bytes(identity.x25519_private).public_key().public_bytes_raw()
        assert derived == identity.x25519_public == x25519_of(identity.public)


def test_a_key_and_its_negative_share_the_x25519_key() -> None:
    negative = IDENTITY.public[:-1] + bytes((IDENTITY.public[-1] ^ 0x80,))
    assert x25519_of(negative) == IDENTITY.x25519_public


def bad_points() -> list[bytes]:
    little = [0, 1, FIELD_PRIME - 1]  # y of the points of order 4, 1 and 2
    order_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
    points = [y.to_bytes(32, "little") for y in (*little, FIELD_PRIME, FIELD_PRIME + 1, 2**255 - 1, 2)]
    points += [bytes.fromhex(order_8), b"", IDENTITY.public[:-1], IDENTITY.public + b"\0", _mixed_order()]
    return points + [point[:-1] + bytes((point[-1] | 0x80,)) for point in points if len(point) == 32]


def _mixed_order() -> bytes:
    """The prime-order point of IDENTITY plus the point of order 2: (x, y) -> (-x, -y)."""
    y = int.from_bytes(IDENTITY.public, "little") & (2**255 - 1)
    sign = IDENTITY.public[-1] & 0x80 ^ 0x80
    data = bytearray((FIELD_PRIME - y).to_bytes(32, "little"))
    data[-1] |= sign
    return bytes(data)


@pytest.mark.parametrize("public", bad_points(), ids=lambda point: point.hex()[:8] + point.hex()[-4:])
def test_points_that_no_seed_gives_are_refused(public: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        x25519_of(public)
    assert caught.value.reason == "bad_identity"


def test_signatures_hold_for_the_signer_and_the_data_only() -> None:
    signature = IDENTITY.sign(b"data")
    assert verify(IDENTITY.public, b"data", signature)
    other = Identity.from_seed(bytes(32))
    assert not verify(other.public, b"data", signature)
    assert not verify(IDENTITY.public, b"datb", signature)
    assert not verify(IDENTITY.public, b"data", signature[:-1])
    assert not verify(IDENTITY.public[:-1], b"data", signature)


def test_addresses_are_unicast_and_of_our_own_kind() -> None:
    for number in range(50):
        identity = Identity.from_seed(number.to_bytes(32, "big"))
        for mac in (identity.mac, synthetic_mac(identity.x25519_public)):
            assert (len(mac), mac[0] & 0b11) == (6, 0b10)  # locally administered, unicast
        assert identity.ula in ULA_NETWORK
        assert identity.ula.is_private and not identity.ula.is_multicast


def test_no_secret_shows_in_a_repr() -> None:
    text = repr(IDENTITY)
    for secret in (IDENTITY.seed, IDENTITY.x25519_private):
        assert repr(secret) not in text and secret.hex() not in text


def test_a_peer_is_named_by_identity_or_by_wireguard_key() -> None:
    assert parse_peer(IDENTITY.text).ed25519 == IDENTITY.public
    assert parse_peer(IDENTITY.text).x25519 == IDENTITY.x25519_public
    stock = parse_peer(wireguard_text(IDENTITY.x25519_public))
    assert (stock.x25519, stock.ed25519) == (IDENTITY.x25519_public, None)


def test_a_key_that_no_machine_could_have_is_bad_input() -> None:
    for text in (encode_key(bytes(32)), *(base64.b64encode(bytes((0, *[0] * 30, top))).decode() for top in (0, 0x80))):
        with pytest.raises(UserError, match="no key that a machine could have"):
            parse_peer(text)


def test_the_ula_network_is_a_local_one() -> None:
    assert ULA_NETWORK.prefixlen == 64
    assert ULA_NETWORK.subnet_of(IPv6Network("fd00::/8"))  # RFC 4193: locally assigned
