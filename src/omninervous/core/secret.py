"""What the cluster's name and secret turn into.

    salt   = BLAKE2s("omninervous secret salt v1" || name)[:16]
    master = Argon2id(secret, salt, 64 MiB, t = 3, p = 1, 32 bytes)          with a secret
    master = BLAKE2s("omninervous open cluster v1" || name)                  without: an open cluster
    psk    = HKDF-Expand-SHA256(master, "omninervous psk v1", 32)            of every handshake between two edges
    seed   = HKDF-Expand-SHA256(master, "omninervous cluster signing v1", 32)   Ed25519 seed of the cluster key

Name and secret are UTF-8 in Unicode normal form C, so that two keyboards give the same bytes. The master is uniformly
random as far as the secret is, so HKDF's extract step is left out (RFC 5869, section 3.3).

Whoever knows the secret can sign memberships: members trust one another. Anybody can derive the keys of an open
cluster, so its name is all that keeps strangers out, and its PSK adds no secrecy.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from omninervous.core.identity import Identity
from omninervous.errors import UserError
from omninervous.wire.signalling import cluster_name_problem

__all__ = ["MIN_SECRET_LENGTH", "ClusterKeys", "check_cluster_name", "check_secret", "derive_cluster"]

MIN_SECRET_LENGTH = 16
MAX_SECRET_LENGTH = 1024

SALT_LABEL = b"omninervous secret salt v1"
OPEN_LABEL = b"omninervous open cluster v1"
PSK_LABEL = b"omninervous psk v1"
SIGNING_LABEL = b"omninervous cluster signing v1"

SALT_SIZE = 16
KEY_SIZE = 32
ARGON2_ITERATIONS = 3
ARGON2_LANES = 1
ARGON2_MEMORY_KIB = 64 * 1024


@dataclass(frozen=True, slots=True)
class ClusterKeys:
    """A cluster, as its members know it."""

    name: str
    public: bytes
    """Ed25519 public key that memberships are signed under; names the registry at the Nucleus, together with `name`."""
    open: bool
    """There is no secret: anybody who knows the name is a member."""
    psk: bytes = field(repr=False)
    """Pre-shared key of every handshake between two edges, 32 bytes."""
    signing_seed: bytes = field(repr=False)

    def sign(self, data: bytes) -> bytes:
        """Signature with the cluster key, 64 bytes."""
        return Identity.from_seed(self.signing_seed).sign(data)


def derive_cluster(name: str, secret: str | None) -> ClusterKeys:
    """The keys of a cluster; UserError for a bad name or a short secret. A secret costs 64 MiB and some 0.2 s."""
    name_bytes = check_cluster_name(name).encode()
    master = _open_master(name_bytes) if secret is None else _master(name_bytes, check_secret(secret).encode())
    seed = _expand(master, SIGNING_LABEL)
    return ClusterKeys(
        name=name_bytes.decode(),
        public=Identity.from_seed(seed).public,
        open=secret is None,
        psk=_expand(master, PSK_LABEL),
        signing_seed=seed,
    )


def check_cluster_name(name: str) -> str:
    """The name in normal form; UserError when it cannot be a cluster's name."""
    name = unicodedata.normalize("NFC", name)
    problem = cluster_name_problem(name)
    if problem is not None:
        raise UserError(f"--cluster {name!r}: {problem}. A cluster's name has 1 to 63 bytes, for example my-robots.")
    return name


def check_secret(secret: str) -> str:
    """The secret in normal form; UserError when it is too short. The text never quotes it."""
    secret = unicodedata.normalize("NFC", secret)
    if len(secret) < MIN_SECRET_LENGTH:
        raise UserError(
            f"the secret has {len(secret)} characters, it needs at least {MIN_SECRET_LENGTH}. "
            "Make a good one with: openssl rand -base64 24"
        )
    if len(secret) > MAX_SECRET_LENGTH:
        raise UserError(f"the secret has {len(secret)} characters, more than {MAX_SECRET_LENGTH}.")
    if any(unicodedata.category(char) == "Cs" for char in secret):
        raise UserError("the secret is not UTF-8 text. Make a good one with: openssl rand -base64 24")
    return secret


def _master(name: bytes, secret: bytes) -> bytes:
    salt = hashlib.blake2s(SALT_LABEL + name).digest()[:SALT_SIZE]
    argon2 = Argon2id(
        salt=salt,
        length=KEY_SIZE,
        iterations=ARGON2_ITERATIONS,
        lanes=ARGON2_LANES,
        memory_cost=ARGON2_MEMORY_KIB,
    )
    return argon2.derive(secret)


def _open_master(name: bytes) -> bytes:
    return hashlib.blake2s(OPEN_LABEL + name).digest()


def _expand(master: bytes, label: bytes) -> bytes:
    return HKDFExpand(algorithm=SHA256(), length=KEY_SIZE, info=label).derive(master)
