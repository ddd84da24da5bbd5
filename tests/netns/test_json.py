"""docs/JSON.md is true of running daemons: every field that it names is there."""

from __future__ import annotations

import json
import re
from typing import Any

from omninervous.hostos.control import request
from omninervous.lab.bench import BenchReport, BenchRow, Score
from omninervous.lab.daemons import Daemon, find_command
from omninervous.lab.namespaces import Lab
from omninervous.lab.natlab import Meeting, NatLabReport
from omninervous.lab.natsites import Outcome
from omninervous.lab.report import Report, Row
from omninervous.lab.topology import Host
from tests.conftest import REPOSITORY
from tests.netns.edges import SECRET, ping

PAGE = (REPOSITORY / "docs" / "JSON.md").read_text()


def documented() -> dict[str, set[str]]:
    """First column -> fields."""
    rows = re.findall(r"^\| (.*`.*?) \| (`.*`) \|$", PAGE, re.MULTILINE)
    return {what: set(re.findall(r"`(\w+)`", fields)) for what, fields in rows}


def test_every_documented_field_is_there(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    nucleus = Daemon(lab, pair_lan[0].namespace, "nucleus").launch("--mode", "nucleus", "--port", "51821").wait_ready()
    words = ("--nucleus", "10.77.0.1:51821", "--cluster", "c", "--mtu")
    secret = {"OMNI_SECRET": SECRET}
    edge = Daemon(lab, pair_lan[0].namespace, "edge").launch(*words, "1380", environment=secret).wait_ready()
    # Another MTU, so that there is a problem to look at.
    other = Daemon(lab, pair_lan[1].namespace, "other").launch(*words, "1400", environment=secret).wait_ready()
    (peer,) = edge.wait_for_peer(30.0)
    other.wait_for_peer(30.0)
    assert ping(pair_lan[0].namespace, peer["vip"]).received
    bad = lab.directory / "bad.toml"
    bad.write_text("[daemon]\nprot = 1\n")

    request(edge.state_dir, "pcap", peer=peer["vip"])
    answers = {command: _ask(edge, *command.split()) for command in ("status", "peers", "fdb", "identity", "doctor")}
    answers |= {command: _ask(edge, *command.split()) for command in ("reload", "config show")}
    answers |= {command: _ask(edge, command, peer["vip"], first_line=command == "ping") for command in ("ping", "why")}
    answers["netcheck"] = _ask(edge, "netcheck")
    file = str(lab.directory / "frames.pcapng")
    answers["pcap"] = _ask(edge, "pcap", "--peer", peer["vip"], "--seconds", "1", "--write", file)
    status, check = answers["status"], _ask(edge, "config", "check", str(bad))
    found = {
        "`omni status` (edge)": status,
        "`interface` in it": status["interface"],
        "`vip` in it": status["vip"],
        "each of `captures`": status["captures"][0],
        "each of `nuclei`": status["nuclei"][0],
        "each of `problems`": status["problems"][0],
        "`omni status` (Nucleus)": nucleus.status(),
        "`omni peers`": answers["peers"],
        "each of `peers`": answers["peers"]["peers"][0],
        "each of its `sessions`": answers["peers"]["peers"][0]["sessions"][0],
        "`omni fdb`": answers["fdb"],
        "each of `fdb`": answers["fdb"]["fdb"][0],
        "`omni identity`": answers["identity"],
        "`omni events` (a line)": _ask(edge, "events", first_line=True),
        "`omni ping` (a line)": answers["ping"],
        "`path` in it": answers["ping"]["path"],
        "`omni why`": answers["why"],
        "each of `tried`": answers["why"]["tried"][0],
        "`omni netcheck`": answers["netcheck"],
        "`ipv4` and `ipv6` in it": answers["netcheck"]["ipv4"],
        "`port_mapping` in it": answers["netcheck"]["port_mapping"],
        "each of its `nuclei`": answers["netcheck"]["nuclei"][0],
        "`omni pcap --write FILE`": answers["pcap"],
        "`omni doctor`": answers["doctor"],
        "each of `findings`": answers["doctor"]["findings"][0],
        "`omni reload`": answers["reload"],
        "`omni config check`": check,
        "each of `faults`": check["faults"][0],
        "`omni config show`": answers["config show"],
        "each of `settings`": answers["config show"]["settings"][0],
        **of_trials(),
    }
    assert found.keys() == documented().keys()
    for what, fields in documented().items():
        assert fields <= found[what].keys(), (what, fields - found[what].keys())


def of_trials() -> dict[str, dict[str, Any]]:
    """What the laboratory's commands print; tests of their own run them."""
    test = Report((Row("ping", True, 0.1, "ms", "seen"),), 1.0).to_json()
    scores = (Score("wireguard-go", (1.0,)),)
    bench = BenchReport((BenchRow("tcp1", "TCP", "Gbit/s", True, scores),), 1, 1.0, {}).to_json()
    meeting = Meeting("a", "b", Outcome.DIRECT, "both are public", True, 0.1, "192.0.2.1:7", "as it is")
    nat = NatLabReport((meeting,), 1.0, 7).to_json()
    return {
        "`omni autotest`": test,
        "each of its `rows`": test["rows"][0],
        "`omni bench`": bench,
        "each row of `omni bench`": bench["rows"][0],
        "each of `results`": bench["rows"][0]["results"][0],
        "`omni lab nat`": nat,
        "each of `pairs`": nat["pairs"][0],
    }


def _ask(edge: Daemon, *command: str, first_line: bool = False) -> dict[str, Any]:
    words = [find_command("omni"), "--state-dir", str(edge.state_dir), *command, "--json"]
    text = edge.where.run(*words, check=False, seconds=60.0).stdout
    answer: dict[str, Any] = json.loads(text.splitlines()[0] if first_line else text)
    return answer
