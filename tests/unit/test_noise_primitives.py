"""The primitives that the handshake stands on give their standards' known answers, as the core calls them."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

from omninervous.core.noise import StaticKeys, SymmetricState, public_key
from omninervous.errors import RemoteError

VECTORS = Path(__file__).parents[1] / "vectors"


def vectors(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


def unhex(case: dict[str, str]) -> dict[str, bytes]:
    return {name: bytes.fromhex(text) for name, text in case.items() if name != "section"}


def test_every_vector_file_says_where_it_comes_from() -> None:
    for path in VECTORS.glob("*.json"):
        assert {"source", "generator"} <= vectors(path.name).keys(), path.name


def test_x25519_matches_rfc_7748() -> None:
    data = vectors("x25519.json")
    for case in map(unhex, data["multiplications"]):
        assert StaticKeys(case["scalar"]).exchange(case["point"]) == case["result"]
    for case in map(unhex, data["public_keys"]):
        assert public_key(case["private"]) == case["public"]
    iterated = unhex(data["iterated"])
    k = u = iterated["start"]
    for number in range(1, 1001):
        k, u = X25519PrivateKey.from_private_bytes(k).exchange(X25519PublicKey.from_public_bytes(u)), k
        if number == 1:
            assert k == iterated["after_1"]
    assert k == iterated["after_1000"]


@pytest.mark.parametrize("point", vectors("x25519.json")["low_order_points"])
def test_a_point_of_low_order_is_refused(point: str) -> None:
    keys = StaticKeys(bytes(range(32)))
    for exchange in (keys.exchange, keys.shared):
        with pytest.raises(RemoteError, match="weak_key"):
            exchange(bytes.fromhex(point))


def test_chacha20_poly1305_matches_rfc_8439() -> None:
    for case in map(unhex, vectors("chacha20poly1305.json")["aead"]):
        sealed = ChaCha20Poly1305(case["key"]).encrypt(case["nonce"], case["plaintext"], case["aad"])
        assert sealed == case["ciphertext"] + case["tag"]


def test_xchacha20_poly1305_matches_its_draft() -> None:
    for case in map(unhex, vectors("xchacha20poly1305.json")["aead"]):
        sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(case["plaintext"], case["aad"], case["nonce"], case["key"])
        assert sealed == case["ciphertext"] + case["tag"]


def test_blake2s_matches_rfc_7693() -> None:
    data = vectors("blake2s.json")
    for case in map(unhex, data["unkeyed"]):
        assert hashlib.blake2s(case["input"]).digest() == case["digest"]
    key = bytes.fromhex(data["keyed"]["key"])
    for answer in data["keyed"]["answers"]:
        text = bytes(range(answer["length"]))
        assert hashlib.blake2s(text, key=key).hexdigest() == answer["digest"]
        assert hashlib.blake2s(text, key=key, digest_size=16).hexdigest() == answer["digest_128"]


def test_hkdf_over_hmac_blake2s_matches_wireguard_go() -> None:
    for case in vectors("kdf_blake2s.json")["kdf3"]:
        secret = hmac.digest(bytes.fromhex(case["key"]), bytes.fromhex(case["input"]), hashlib.blake2s)
        previous, outputs = b"", []
        for number in (1, 2, 3):
            previous = hmac.digest(secret, previous + bytes([number]), hashlib.blake2s)
            outputs.append(previous.hex())
        assert outputs == case["outputs"]


def test_the_symmetric_state_follows_noise_ikpsk2() -> None:
    """Noise's own vector: its prologue and payloads, our state, the pattern's tokens spelled out."""
    vector = vectors("noise_ikpsk2.json")["vector"]
    static, ephemeral = (StaticKeys(bytes.fromhex(vector[f"init_{name}"])) for name in ("static", "ephemeral"))
    remote = bytes.fromhex(vector["init_remote_static"])
    answer = public_key(bytes.fromhex(vector["resp_ephemeral"]))
    payloads = [bytes.fromhex(message["payload"]) for message in vector["messages"]]
    wire = [bytes.fromhex(message["ciphertext"]) for message in vector["messages"]]

    name = hashlib.blake2s(vector["protocol_name"].encode()).digest()
    state = SymmetricState(name, name)
    state.mix_hash(bytes.fromhex(vector["init_prologue"]))
    state.mix_hash(remote)  # <- s
    state.mix_ephemeral(ephemeral.public)  # -> e
    sealed = ephemeral.public + state.seal(state.mix_key(ephemeral.exchange(remote)), static.public)  # es, s
    assert sealed + state.seal(state.mix_key(static.exchange(remote)), payloads[0]) == wire[0]  # ss
    state.mix_ephemeral(answer)  # <- e
    state.mix_chain(ephemeral.exchange(answer))  # ee
    state.mix_chain(static.exchange(answer))  # se
    key = state.mix_psk(bytes.fromhex(vector["init_psks"][0]))
    assert answer + state.seal(key, payloads[1]) == wire[1]

    transport = state.split(1, 2, remote, initiator=True)
    assert transport.handshake_hash.hex() == vector["handshake_hash"]
    for number, key, counter in ((2, transport.send_key, 0), (3, transport.recv_key, 0), (4, transport.send_key, 1)):
        nonce = bytes(4) + counter.to_bytes(8, "little")
        assert ChaCha20Poly1305(key).encrypt(nonce, payloads[number], None) == wire[number]
