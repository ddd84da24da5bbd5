"""Daemons that are told everything by a file or the environment, and read it again while they run."""

from __future__ import annotations

import signal

import pytest

from omninervous.errors import SystemFailure
from omninervous.lab.daemons import Daemon, find_command
from omninervous.lab.namespaces import Lab
from omninervous.lab.process import run_command
from omninervous.lab.topology import Host
from tests.netns.edges import Pair, ping, vip


def test_a_file_and_the_environment_make_a_pair(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    one, two = (Daemon(lab, host.namespace, name) for host, name in zip(pair_lan, "ab", strict=True))
    key_one, key_two = one.init(), two.init()
    file = lab.directory / "one.toml"
    endpoint = f"{pair_lan[1].address}:51820"
    file.write_text(
        f'[network]\nvip = "10.200.0.1"\nmtu = 1400\n[[peer]]\nkey = "{key_two}"\nendpoint = "{endpoint}"\n'
    )
    one.launch("--config", str(file)).wait_ready()
    two.launch(
        environment={"OMNI_PEER": key_one, "OMNI_VIP": "10.200.0.2", "OMNI_MTU": "1400", "OMNI_NODE": "7"}
    ).wait_ready()
    assert "OMNI_NODE in the environment is no setting" in two.process.output()
    one.wait_for_peer()
    assert ping(pair_lan[0].namespace, "10.200.0.2").loss == 0
    assert (vip(one), one.status()["interface"]["mtu"]) == ("10.200.0.1", 1400)


def test_a_reload_applies_what_it_can_and_drops_no_session(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    pair = Pair(lab, pair_lan)
    file = lab.directory / "one.toml"
    file.write_text("[security]\nmax_sessions_per_ip = 10\n")
    pair.start_a("--config", str(file)).wait_ready()
    pair.start_b().wait_ready()
    pair.a.wait_for_peer()
    pair.b.wait_for_peer()
    assert ping(pair_lan[0].namespace, vip(pair.b)).loss == 0
    (before,) = pair.a.peers()
    file.write_text('[daemon]\nport = 7000\nlog_format = "human"\n[security]\nmax_sessions_per_ip = 3\n')
    answer = pair.a.ask("reload")
    assert answer == {"applied": ["log_format", "max_sessions_per_ip"], "needs_restart": ["port"]}
    assert ping(pair_lan[0].namespace, vip(pair.b)).loss == 0
    (after,) = pair.a.peers()
    assert {each["id"] for each in before["sessions"]} & {each["id"] for each in after["sessions"]}
    assert "needs_restart=['port']" in pair.a.process.output(), "the new format holds from now on"

    file.write_text("[daemon]\nport = 0\n")
    with pytest.raises(SystemFailure, match=rf"{file}:2: daemon.port = 0"):
        pair.a.ask("reload")
    told = run_command([find_command("omni"), "--state-dir", str(pair.a.state_dir), "reload"], check=False)
    assert told.returncode == 2 and told.stderr.startswith(f"omni: {file}:2: daemon.port = 0")
    assert ping(pair_lan[0].namespace, vip(pair.b)).loss == 0, "a bad file changes nothing"
    pair.a.process.signal(signal.SIGHUP)
    pair.a.process.wait_for_output(f'error="{file}:2: daemon.port = 0', 10.0)
    file.write_text("")
    pair.a.process.signal(signal.SIGHUP)
    pair.a.process.wait_for_output('"applied": ["log_format", "max_sessions_per_ip"]', 10.0)


def test_a_reload_adds_and_removes_peers(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    pair = Pair(lab, pair_lan)
    file = lab.directory / "one.toml"
    file.write_text("")
    pair.a.launch("--config", str(file)).wait_ready()
    pair.start_b().wait_ready()
    assert pair.a.status()["missing"]
    entry = f'[[peer]]\nkey = "{pair.key_b}"\nendpoint = "{pair_lan[1].address}:51820"\n'
    file.write_text(entry)
    assert pair.a.ask("reload") == {"applied": ["peer"], "needs_restart": []}
    pair.a.wait_for_peer()
    pair.b.wait_for_peer()
    where, there = pair_lan[0].namespace, vip(pair.b)
    assert ping(where, there).loss == 0
    status = pair.a.status()
    assert len(status["named_peers"]) == 1 and not status["missing"]

    file.write_text(f'{entry}[[peer]]\nkey = "{pair.key_a}"\n')
    with pytest.raises(SystemFailure, match="this machine's own key"):
        pair.a.ask("reload")
    assert ping(where, there).loss == 0, "nothing was changed"
    file.write_text("")
    assert pair.a.ask("reload") == {"applied": ["peer"], "needs_restart": []}
    assert not pair.a.peers() and pair.a.status()["missing"]
    assert ping(where, there).received == 0


def test_a_nucleus_is_told_by_a_file_and_reloads(lab: Lab) -> None:
    file = lab.directory / "nucleus.toml"
    file.write_text('[daemon]\nmode = "nucleus"\nport = 7001\n')
    nucleus = Daemon(lab, lab.namespace("nucleus"), "nucleus")
    nucleus.launch("--config", str(file), environment={"OMNI_PROT": "7001"}).wait_ready()
    assert "did you mean OMNI_PORT?" in nucleus.process.output()
    assert nucleus.status()["mode"] == "nucleus" and nucleus.status()["port"] == 7001
    file.write_text('[daemon]\nmode = "nucleus"\nport = 7002\n[security]\nmax_sessions_per_ip = 100\n')
    assert nucleus.ask("reload") == {"applied": ["max_sessions_per_ip"], "needs_restart": ["port"]}


def test_a_bad_file_is_refused_before_anything_is_made(lab: Lab) -> None:
    file = lab.directory / "bad.toml"
    file.write_text("[daemon]\nprot = 1\n")
    command = [find_command("omni-daemon"), "--config", str(file), "--state-dir", str(lab.directory / "state")]
    done = run_command(command, check=False)
    assert done.returncode == 2 and done.stderr.startswith(f"omni-daemon: {file}:2: daemon.prot = 1")
    assert done.stderr.count("\n") == 1 and "did you mean port" in done.stderr
    assert not (lab.directory / "state").exists()
