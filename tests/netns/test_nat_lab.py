"""`omni lab nat`: real daemons behind real NATs end as the definitions say."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from omninervous.errors import SystemFailure
from omninervous.lab.daemons import find_command
from omninervous.lab.namespaces import Lab
from omninervous.lab.nat import NatKind
from omninervous.lab.natbuild import NatNetwork
from omninervous.lab.natsites import SITES, Site
from omninervous.lab.process import run_command

BY_NAME = {site.name: site for site in SITES}


def lab_nat(*arguments: str, seconds: float) -> tuple[int, dict[str, object]]:
    done = run_command([find_command("omni"), "lab", "nat", "--json", *arguments], check=False, seconds=seconds)
    return done.returncode, json.loads(done.stdout)


def test_pairs_meet_exactly_where_the_definitions_allow_it() -> None:
    sites = "public,address-restricted,port-restricted,symmetric,same-lan,ipv6-only,dual-stack"
    status, report = lab_nat("--sites", sites, seconds=110)
    assert status == 0, report
    pairs = report["pairs"]
    assert isinstance(pairs, list) and len(pairs) == 28
    observed = {(pair["a"], pair["b"]): pair["observed"] for pair in pairs}
    assert observed["port-restricted", "port-restricted"] == "direct"
    assert observed["port-restricted", "symmetric"] == "none"
    assert observed["public", "ipv6-only"] == "none"


def test_an_unknown_site_is_named_with_the_choice() -> None:
    done = run_command([find_command("omni"), "lab", "nat", "--sites", "public,moon"], check=False)
    assert done.returncode == 2
    assert "moon" in done.stderr and "port-restricted" in done.stderr and "Traceback" not in done.stderr


def test_a_nat_that_is_not_what_it_claims_stops_the_laboratory(lab: Lab) -> None:
    network = NatNetwork(lab, (BY_NAME["symmetric"],))
    network.machines[0] = replace(network.machines[0], site=Site("pretender", (NatKind.FULL_CONE,)))
    with pytest.raises(SystemFailure, match="pretender"):
        network.check()


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_all_pairs_agree_with_the_oracle_five_times_in_a_row() -> None:
    for _ in range(5):
        status, report = lab_nat(seconds=240)
        assert status == 0, [pair for pair in report["pairs"] if not pair["ok"]]  # type: ignore[attr-defined]


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_all_pairs_agree_on_every_bad_internet(seed: int) -> None:
    status, report = lab_nat("--full", "--seconds", "40", "--seed", str(seed), seconds=1400)
    assert status == 0, [pair for pair in report["pairs"] if not pair["ok"]]  # type: ignore[attr-defined]
