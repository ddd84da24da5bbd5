"""What the daemons tell a real Prometheus, and that the numbers are true."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from omninervous.lab.daemons import PAIR_VIPS, Daemon, start_cluster, start_pair
from omninervous.lab.link import LinkSpec, start_link
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.topology import TwoNats, address_pair
from tests.conftest import REPOSITORY, TOOLS
from tests.netns.edges import all_answered, ping, wait_for

PINGS = 1000
PORT = 9751
USERS_NAMES = (
    "omni_sessions_active",
    "omni_packets_rx_total",
    "omni_handshakes_completed_total",
    "omni_sessions_dropped_ratelimit_total",
)
MONITORING = REPOSITORY / "contrib" / "monitoring"


@pytest.fixture(scope="session")
def prometheus() -> Path:
    """The folder of Debian's prometheus and promtool."""
    folder = TOOLS / "prometheus" / "usr" / "bin"
    if not (folder / "prometheus").exists():
        pytest.fail("no prometheus: make setup fetches Debian's package", pytrace=False)
    return folder


def fetch(where: Namespace, port: int, path: str, accept: str = "text/plain") -> str:
    """GET, on that machine."""

    def ask() -> str:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
            connection.request("GET", path, headers={"Accept": accept})
            return connection.getresponse().read().decode()

    return where.call(ask)


def scrape(where: Namespace, port: int = PORT) -> str:
    return fetch(where, port, "/metrics")


def samples(text: str) -> dict[str, float]:
    """`name{labels}` -> value."""
    rows = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(number) for name, number in rows}


class Watched:
    """A cluster whose daemons serve metrics."""

    def __init__(self, lab: Lab, net: TwoNats) -> None:
        self.net = net
        self.daemons = start_cluster(lab, net, environment={"OMNI_METRICS": f"127.0.0.1:{PORT}"})
        self.nucleus, self.a, self.b = self.daemons
        self.a.wait_for_peer(30.0)
        self.b.wait_for_peer(30.0)

    def of(self, daemon: Daemon) -> dict[str, float]:
        return samples(scrape(daemon.where))


def test_a_thousand_pings_move_the_counters_by_what_they_should(lab: Lab, two_nats: TwoNats, prometheus: Path) -> None:
    watched = Watched(lab, two_nats)
    a = watched.net.edge_a.namespace
    server = Prometheus(lab, prometheus, a)
    server.wait_for("omni_packets_rx_total")
    before = {daemon: watched.of(daemon) for daemon in (watched.a, watched.b)}
    all_answered(a, "10.200.0.2", PINGS, "-i", "0.002")
    for daemon in (watched.a, watched.b):
        after = watched.of(daemon)
        moved = {name: after[name] - before[daemon].get(name, 0.0) for name in after}
        # Every echo is one datagram each way; a keepalive, a heartbeat or a CAPS may come in between.
        for direction in ("rx", "tx"):
            assert PINGS <= moved[f"omni_packets_{direction}_total"] <= PINGS + 30
            lanes = {name: number for name, number in moved.items() if name.startswith("omni_lane_packets_total")}
            of_direction = [number for name, number in lanes.items() if f'direction="{direction}"' in name]
            assert sum(of_direction) == moved[f"omni_packets_{direction}_total"]
            of_bytes = [n for name, n in moved.items() if "omni_lane_bytes_total" in name and f'"{direction}"' in name]
            # 84 bytes of IP in 14 of Ethernet, 1 of kind, 16 of header, 16 of tag.
            assert PINGS * 131 <= sum(of_bytes) <= PINGS * 131 + 30 * 1500
        assert after["omni_sessions_active"] == 1 and after["omni_fdb_entries"] >= 1
        assert after['omni_peer_paths{path="nat"}'] == 1 and after['omni_peers{state="up"}'] == 1
        assert after["omni_handshake_duration_seconds_count"] >= 1
        assert any(name.startswith("omni_nucleus_registered") and number == 1 for name, number in after.items())
    # And the real Prometheus has them, too.
    wanted = watched.of(watched.a)["omni_packets_rx_total"]
    wait_for("the pings in Prometheus", lambda: (server.query("omni_packets_rx_total") or 0) >= wanted, 30.0)
    assert server.query("omni_sessions_active") == 1
    names = watched_names(watched)
    check_monitoring(names, prometheus, server)


def watched_names(watched: Watched) -> set[str]:
    """Every name that any of the daemons exports; also of a family that has no samples as yet."""
    texts = [scrape(daemon.where) for daemon in watched.daemons]
    declared = {name for text in texts for name in re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)}
    return declared | {re.split(r"[{ ]", name)[0] for text in texts for name in samples(text)}


def check_monitoring(names: set[str], prometheus: Path, server: Prometheus) -> None:
    """Rules and dashboard: they load, and every metric that they name exists."""
    rules = MONITORING / "alerts.yml"
    checked = server.where.run(str(prometheus / "promtool"), "check", "rules", str(rules))
    assert "SUCCESS" in checked.stdout
    groups = server.ask("rules")["data"]["groups"]
    expressions = [rule["query"] for group in groups for rule in group["rules"]]
    assert len(expressions) >= 6
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    expressions += [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(expressions) >= 15
    for expression in expressions:
        found = set(re.findall(r"\b(?:omni|process)_\w+", expression))
        assert found and found <= names, f"{found - names} in {expression}"
        plain = expression.replace("$instance", ".*").replace("$__rate_interval", "1m")
        assert server.ask("query", query=plain)["status"] == "success", expression


def test_the_users_names_are_there_at_zero_from_the_start(lab: Lab, daemon: Any, prometheus: Path) -> None:
    machine = lab.namespace("machine")
    daemon(machine, "edge", "--metrics", f"127.0.0.1:{PORT}")
    daemon(machine, "nucleus", "--mode", "nucleus", "--port", "51821", "--metrics", f"127.0.0.1:{PORT + 1}")
    for port in (PORT, PORT + 1):
        text = scrape(machine, port=port)
        assert {name: samples(text)[name] for name in USERS_NAMES} == dict.fromkeys(USERS_NAMES, 0.0)
        checked = machine.run(str(prometheus / "promtool"), "check", "metrics", text_in=text)
        assert checked.stdout + checked.stderr == "", "promtool has nothing to say"
    exposition = fetch(machine, PORT, "/metrics", "application/openmetrics-text; version=1.0.0")
    assert exposition.rstrip().endswith("# EOF") and "# TYPE omni_packets_rx counter" in exposition
    assert "metrics are at /metrics" in fetch(machine, PORT, "/")


def test_round_trips_are_told_by_kind_of_path(lab: Lab, seed: int) -> None:
    a, b = lab.namespace("a"), lab.namespace("b")
    start_link(lab, (a, "eth0"), (b, "eth0"), LinkSpec(delay=0.06), seed)
    edges = start_pair(lab, address_pair(a, b), "--metrics", f"127.0.0.1:{PORT}")
    for edge in edges:
        edge.wait_for_peer()

    def measured() -> dict[str, float]:
        ping(a, str(PAIR_VIPS[1]), 1)  # a path is measured while there is data
        found = samples(scrape(a))
        return found if found['omni_peer_rtt_seconds_count{path="lan"}'] else {}

    after = wait_for("a round trip", measured)
    count, seconds = (after[f'omni_peer_rtt_seconds_{what}{{path="lan"}}'] for what in ("count", "sum"))
    assert seconds >= count * 0.12, "twice the delay of the wire"
    assert after['omni_peer_rtt_seconds_bucket{le="0.1",path="lan"}'] == 0
    assert after['omni_peer_rtt_seconds_bucket{le="+Inf",path="lan"}'] == count
    assert all(after[f'omni_peer_rtt_seconds_count{{path="{kind}"}}'] == 0 for kind in ("ipv6", "direct", "nat"))


def test_strangers_move_counters_and_make_no_series(lab: Lab, daemon: Any) -> None:
    machine = lab.namespace("machine")
    daemon(machine, "edge", "--metrics", f"127.0.0.1:{PORT}")
    before = samples(scrape(machine))
    with machine.udp_socket() as stranger:
        for number in range(200):
            stranger.sendto(bytes([1, 0, 0, 0]) + number.to_bytes(4, "big") * 36, ("127.0.0.1", 51820))
    # The kernel's lane drops them where it runs, the control plane where not.
    names = [f'omni_drops_total{{plane="{plane}",reason="bad_mac1"}}' for plane in ("control", "data")]

    def dropped() -> dict[str, float]:
        found = samples(scrape(machine))
        return found if sum(found.get(name, 0) for name in names) == 200 else {}

    after = wait_for("the drops", dropped)
    assert len(after) - len(before) <= 2, "one reason, not one series for each sender"
    assert not any("127.0.0.1" in name for name in after)


def test_a_reload_moves_the_metrics(lab: Lab, daemon: Any) -> None:
    machine = lab.namespace("machine")
    file = lab.directory / "edge.toml"
    file.write_text("")
    edge = daemon(machine, "edge", "--config", str(file))
    assert "9751" not in machine.run("ss", "-Htln").stdout, "off by default"
    file.write_text(f'[daemon]\nmetrics = "127.0.0.1:{PORT}"\n')
    assert edge.ask("reload")["applied"] == ["metrics"]
    assert "omni_sessions_active 0.0" in scrape(machine)
    file.write_text('[daemon]\nmetrics = "127.0.0.1:9752"\n')
    edge.ask("reload")
    assert "omni_sessions_active 0.0" in scrape(machine, port=9752)
    assert f":{PORT} " not in machine.run("ss", "-Htln").stdout


class Prometheus:
    """Debian's, on a machine of the lab, scraping the daemon of that machine every second."""

    def __init__(self, lab: Lab, programs: Path, where: Namespace) -> None:
        self.where = where
        config = lab.directory / "prometheus.yml"
        jobs = f'[{{"job_name": "omni", "static_configs": [{{"targets": ["127.0.0.1:{PORT}"]}}]}}]'
        rules = f"rule_files: [{MONITORING / 'alerts.yml'}]"
        config.write_text(f"global: {{scrape_interval: 1s}}\n{rules}\nscrape_configs: {jobs}\n")
        lab.start(
            where,
            "prometheus",
            [
                str(programs / "prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={lab.directory / 'tsdb'}",
                "--web.listen-address=127.0.0.1:9090",
            ],
        )

    def ask(self, what: str, **query: str) -> dict[str, Any]:
        """Its HTTP API."""
        try:
            answer: dict[str, Any] = json.loads(
                fetch(self.where, 9090, f"/api/v1/{what}?{urllib.parse.urlencode(query)}")
            )
        except (OSError, ValueError):
            return {"status": "down"}  # it is still starting
        return answer

    def query(self, expression: str) -> float | None:
        """The first value of an expression."""
        result = self.ask("query", query=expression).get("data", {}).get("result", [])
        return float(result[0]["value"][1]) if result else None

    def wait_for(self, name: str) -> None:
        wait_for(f"{name} in Prometheus", lambda: self.query(name) is not None, 60.0)
