"""`omni pcap`: real frames, unsealed, read by tshark; traffic does not wait for it."""

from __future__ import annotations

import shlex
import signal
import struct
from pathlib import Path

import pytest

from omninervous.lab.daemons import PAIR_VIPS, Daemon, find_command, start_pair
from omninervous.lab.namespaces import Lab, Namespace
from omninervous.lab.process import Process, run_command
from omninervous.lab.topology import Host
from tests.netns.edges import ping, wait_for

REFLEX = 8
FIELDS = ("frame.packet_flags_direction", "icmp.type", "ip.src", "ip.dst")
IN, OUT = "0x00000001", "0x00000002"
REQUEST, REPLY = "8", "0"


@pytest.fixture(params=["auto", "off"])
def edges(lab: Lab, pair_lan: tuple[Host, Host], request: pytest.FixtureRequest) -> tuple[Daemon, Daemon]:
    """With the kernel's lane, and without."""
    made = start_pair(lab, pair_lan, "--ebpf", request.param)
    if request.param == "auto":
        wait_for("the kernel's lane", lambda: all(REFLEX in each["lanes"] for edge in made for each in edge.peers()))
    assert ping(pair_lan[0].namespace, str(PAIR_VIPS[1]), 2).loss == 0  # addresses are resolved
    return made


def start_capture(lab: Lab, machine: Namespace, edge: Daemon, *options: str, then: str = "") -> Process:
    """`omni pcap --peer B ... | THEN`, at work."""
    omni = [find_command("omni"), "--state-dir", str(edge.state_dir), "pcap", "--peer", str(PAIR_VIPS[1]), *options]
    pipeline = ["bash", "-o", "pipefail", "-c", f"{shlex.join(omni)} | {then}"]
    process = lab.start(machine, "pcap", pipeline if then else omni)
    wait_for("omni status shows it", lambda: edge.status()["captures"])
    return process


def shown(path: Path, *fields: str) -> list[list[str]]:
    """What tshark reads in a capture."""
    wanted = [word for field in fields for word in ("-e", field)]
    done = run_command(["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "separator=|", *wanted])
    return [line.split("|") for line in done.stdout.splitlines()]


def test_tshark_shows_both_directions_while_it_is_wanted(
    lab: Lab, pair_lan: tuple[Host, Host], edges: tuple[Daemon, Daemon]
) -> None:
    edge, machine, (ours, theirs) = edges[0], pair_lan[0].namespace, map(str, PAIR_VIPS)
    fields = " ".join(f"-e {each}" for each in FIELDS)
    process = start_capture(
        lab, machine, edge, "--count", "10", then=f"tshark -l -n -r - -Y icmp -T fields -E 'separator=|' {fields}"
    )
    (capture,) = edge.status()["captures"]
    assert capture["seconds"] >= 0 and capture["peer"]
    assert ping(machine, theirs, 5).loss == 0
    # Other frames (neighbours looking for one another) count, too.
    ping(machine, theirs, 5)  # for as many as were not there yet when those before passed
    assert process.wait(20.0) == 0, process.output()
    lines = [line.split("|") for line in process.output().splitlines() if line.startswith("0x")]
    assert lines and [OUT, REQUEST, ours, theirs] in lines and [IN, REPLY, theirs, ours] in lines
    assert all(line in ([OUT, REQUEST, ours, theirs], [IN, REPLY, theirs, ours]) for line in lines)
    assert "omni pcap: 10 frames of" in process.output()
    wait_for("nobody looks any more", lambda: not edge.status()["captures"])
    if edge.status()["reflex"]["mechanism"] != "off":
        before = edge.status()["counters"]["lane8_tx_packets"]
        assert ping(machine, theirs, 10).loss == 0
        assert edge.status()["counters"]["lane8_tx_packets"] >= before + 10, "the kernel's lane sends again"


def test_only_the_peers_frames_with_their_tags_in_a_file_for_the_owner(
    lab: Lab, pair_lan: tuple[Host, Host], edges: tuple[Daemon, Daemon]
) -> None:
    path = lab.directory / "peer.pcapng"
    edge, machine, other = edges[0], pair_lan[0].namespace, pair_lan[1].namespace
    mac_a, mac_b = (bytes.fromhex(each.status()["interface"]["mac"].replace(":", "")) for each in edges)
    stranger = b"\x02\0\0\0\0\x77"
    process = start_capture(lab, machine, edge, "--write", str(path), "--snaplen", "60")
    with machine.packet_socket("omni0") as sender:
        for destination in (stranger, mac_b, b"\xff" * 6):
            sender.send(destination + mac_a + struct.pack("!HHH", 0x8100, 42, 0x88B5) + bytes(100))
    assert ping(other, str(PAIR_VIPS[0]), 2).loss == 0
    wait_for("all of it", lambda: len([each for each in shown(path, "icmp.type") if each != [""]]) >= 4)
    process.signal(signal.SIGTERM)
    assert process.wait(20.0) == 0
    wait_for("nobody looks any more", lambda: not edge.status()["captures"])
    assert path.stat().st_mode & 0o777 == 0o600
    tagged = [line for line in shown(path, "vlan.id", "eth.dst", "frame.len", "frame.cap_len") if line[0]]
    assert tagged == [["42", mac_b.hex(":"), "118", "60"], ["42", "ff:ff:ff:ff:ff:ff", "118", "60"]]
    assert {line[0] for line in shown(path, "frame.interface_name")} == {"omni0"}


def test_a_slow_reader_loses_frames_and_traffic_goes_on(
    lab: Lab, pair_lan: tuple[Host, Host], edges: tuple[Daemon, Daemon]
) -> None:
    edge, machine, other = edges[0], pair_lan[0].namespace, pair_lan[1].namespace
    path = lab.directory / "slow.pcapng"
    go = lab.directory / "go"
    process = start_capture(
        lab, machine, edge, "--count", "50", then=f"(while [ ! -e {go} ]; do sleep 0.1; done; cat > {path})"
    )
    server = lab.start(other, "iperf3", ["iperf3", "-s", "-1", "--forceflush"])
    server.wait_for_output("Server listening", 10.0)
    done = machine.run("iperf3", "-c", str(PAIR_VIPS[1]), "-n", "100M", "-J", seconds=120.0)
    assert '"error"' not in done.stdout, done.stdout
    assert edge.status()["captures"], "it is looked at for as long as the reader is there"
    go.touch()
    assert process.wait(60.0) == 0, process.output()
    assert "more were not taken in time" in process.output()
    assert shown(path, "frame.number")


def test_what_cannot_be_captured_is_said(lab: Lab, pair_lan: tuple[Host, Host]) -> None:
    edge, _ = start_pair(lab, pair_lan)
    machine = pair_lan[0].namespace
    omni = [find_command("omni"), "--state-dir", str(edge.state_dir), "pcap"]
    for words, status, said in (
        (("--peer", "nobody"), 2, "no peer is known by the name or key 'nobody'"),
        (("--peer", str(PAIR_VIPS[1]), "--write", "/nowhere/x"), 2, "--write /nowhere/x: No such file or directory"),
        (("--peer", str(PAIR_VIPS[1]), "--json"), 2, "--json needs --write FILE"),
        ((), 2, "Missing option '--peer'"),
    ):
        done = machine.run(*omni, *words, check=False)
        assert (done.returncode, done.stdout) == (status, "") and said in done.stderr and done.stderr.count("\n") == 1
    done = run_command([*omni, "--peer", str(PAIR_VIPS[1])], check=False)
    assert done.returncode == 1 and "interface omni0 cannot be captured here" in done.stderr
    assert "Traceback" not in edge.process.output()
