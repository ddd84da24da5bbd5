"""Writes identity.json and secret.json anew, by other means than the package: libsodium's Argon2id (the package takes
OpenSSL's), HKDF from hmac, the Edwards-to-Montgomery map and base58 in plain arithmetic. Imports nothing of it.

Run: python tests/vectors/generators/identity_and_secret.py
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
from pathlib import Path
from typing import Any

from nacl import pwhash
from nacl.signing import SigningKey

VECTORS = Path(__file__).resolve().parents[1]
P = 2**255 - 19
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

SEEDS = [
    ("RFC 8032, 7.1, test 1", "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"),
    ("libsodium, test/default/ed25519_convert.c", "421151a459faeade3d247115f94aedae42318124095afabe4d1451a559faedee"),
    ("zeros", bytes(32).hex()),
    ("counting", bytes(range(32)).hex()),
]
CLUSTERS = [
    ("mynetwork", "YourSecretAtLeast16Chars"),
    ("ai-robot-fleet", None),
    ("Werk Köln", "Füße größer als 1 Elefant"),
    ("x", "0123456789abcdef"),
    ("x", None),
]


def blake2s(*parts: bytes) -> bytes:
    return hashlib.blake2s(b"".join(parts)).digest()


def expand(master: bytes, label: bytes) -> bytes:
    return hmac.new(master, label + b"\x01", hashlib.sha256).digest()


def base58(data: bytes) -> str:
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return text.rjust(50, "1")


def mac(digest: bytes) -> str:
    first = digest[0] - digest[0] % 4 + 2
    return ":".join(f"{byte:02x}" for byte in [first, *digest[1:6]])


def identity(source: str, seed: bytes) -> dict[str, Any]:
    public = bytes(SigningKey(seed).verify_key)
    y = int.from_bytes(public, "little") % 2**255
    u = (1 + y) * pow(1 - y, P - 2, P) % P
    scalar = bytearray(hashlib.sha512(seed).digest()[:32])
    scalar[0] &= 248
    scalar[31] = scalar[31] & 127 | 64
    vips = []
    for derivation in (0, 1, 65534):
        number = int.from_bytes(blake2s(b"omninervous vip v1", public, derivation.to_bytes(2, "big"))[:8], "big")
        vips.append(
            [derivation, str(ipaddress.ip_address(int(ipaddress.ip_address("10.200.0.1")) + number % (2**19 - 2)))]
        )
    return {
        "source": source,
        "seed": seed.hex(),
        "public": public.hex(),
        "x25519_private": scalar.hex(),
        "x25519_public": u.to_bytes(32, "little").hex(),
        "text": base58(public + blake2s(b"omninervous key v1", public)[:4]),
        "mac": mac(blake2s(b"omninervous mac v1", public)),
        "synthetic_mac_of_x25519": mac(blake2s(b"omninervous wireguard mac v1", u.to_bytes(32, "little"))),
        "ula": str(
            ipaddress.ip_address(bytes.fromhex("fd6f6d6e69000000") + blake2s(b"omninervous ula v1", public)[:8])
        ),
        "key_hash": blake2s(b"omninervous key hash v1", public).hex(),
        "vips": vips,
    }


def cluster(name: str, secret: str | None) -> dict[str, Any]:
    if secret is None:
        master = blake2s(b"omninervous open cluster v1", name.encode())
    else:
        salt = blake2s(b"omninervous secret salt v1", name.encode())[:16]
        master = pwhash.argon2id.kdf(32, secret.encode(), salt, opslimit=3, memlimit=64 << 20)
    signing_seed = expand(master, b"omninervous cluster signing v1")
    return {
        "cluster": name,
        "secret": secret,
        "psk": expand(master, b"omninervous psk v1").hex(),
        "signing_seed": signing_seed.hex(),
        "public": bytes(SigningKey(signing_seed).verify_key).hex(),
    }


def write(name: str, source: str, cases: list[dict[str, Any]]) -> None:
    vectors = {"source": source, "generator": "generators/identity_and_secret.py", "cases": cases}
    (VECTORS / name).write_text(json.dumps(vectors, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    write(
        "identity.json", "libsodium (Ed25519) and plain arithmetic", [identity(s, bytes.fromhex(x)) for s, x in SEEDS]
    )
    write("secret.json", "libsodium (Argon2id) and hmac", [cluster(*case) for case in CLUSTERS])
