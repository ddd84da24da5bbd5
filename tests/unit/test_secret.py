"""What a cluster's name and secret turn into."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from omninervous.core.identity import verify
from omninervous.core.secret import check_cluster_name, check_secret, derive_cluster
from omninervous.errors import UserError

CASES = json.loads((Path(__file__).resolve().parents[1] / "vectors" / "secret.json").read_text())["cases"]


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case['cluster']}-{'open' if case['secret'] is None else 'secret'}"
)
def test_keys_are_those_of_another_implementation(case: dict[str, Any]) -> None:
    keys = derive_cluster(case["cluster"], case["secret"])
    assert keys.name == case["cluster"]
    assert keys.open is (case["secret"] is None)
    assert (keys.psk.hex(), keys.signing_seed.hex(), keys.public.hex()) == (
        case["psk"],
        case["signing_seed"],
        case["public"],
    )


def test_every_case_gives_other_keys() -> None:
    assert len({case["psk"] for case in CASES} | {case["signing_seed"] for case in CASES}) == 2 * len(CASES)


def test_two_ways_to_type_a_letter_are_one_secret_and_one_name() -> None:
    composed = "Füße größer als 1 Elefant"
    assert check_secret(unicodedata.normalize("NFD", composed)) == composed
    assert check_cluster_name(unicodedata.normalize("NFD", "Köln")) == "Köln"


def test_the_cluster_key_signs() -> None:
    keys = derive_cluster("x", None)
    assert verify(keys.public, b"data", keys.sign(b"data"))


def test_no_secret_shows_in_a_repr() -> None:
    keys = derive_cluster("x", None)
    for secret in (keys.psk, keys.signing_seed):
        assert repr(secret) not in repr(keys) and secret.hex() not in repr(keys)


@pytest.mark.parametrize("secret", ["", "short", "x" * 15, "x" * 1025, "surrogate \udcff in here", "e\u0301" * 15])
def test_a_short_or_broken_secret_is_bad_input_and_is_not_quoted(secret: str) -> None:
    with pytest.raises(UserError) as caught:
        derive_cluster("fleet", secret)
    assert not secret or secret not in str(caught.value)


@pytest.mark.parametrize("name", ["", "x" * 64, "a\0b", "\udcff", " "])
def test_a_bad_cluster_name_is_bad_input(name: str) -> None:
    with pytest.raises(UserError, match="--cluster"):
        derive_cluster(name, None)
