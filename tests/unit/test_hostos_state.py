"""The state directory: identity, lock, what is remembered."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from omninervous.errors import SystemFailure, UserError
from omninervous.hostos.state import IDENTITY_FILE, StateDir, default_state_dir


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    made = StateDir(tmp_path / "deep" / "state")
    made.create()
    return made


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_directory_and_key_are_for_their_owner_only(state: StateDir) -> None:
    state.create_seed()
    assert mode_of(state.path) == 0o700
    assert mode_of(state.path / IDENTITY_FILE) == 0o600


def test_the_umask_cannot_open_the_key(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        state = StateDir(tmp_path / "state")
        state.create_seed()
    finally:
        os.umask(before)
    assert mode_of(state.path) == 0o700
    assert mode_of(state.path / IDENTITY_FILE) == 0o600


def test_an_identity_is_made_once_and_kept(state: StateDir) -> None:
    assert state.load_seed() is None
    seed = state.create_seed()
    content = (state.path / IDENTITY_FILE).read_bytes()
    assert state.create_seed() == state.load_seed() == seed
    assert (state.path / IDENTITY_FILE).read_bytes() == content


def test_makers_at_the_same_time_get_the_same_identity(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        seeds = set(pool.map(lambda _: StateDir(tmp_path / "state").create_seed(), range(32)))
    assert len(seeds) == 1
    assert os.listdir(tmp_path / "state") == [IDENTITY_FILE], "no temporary file stays behind"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_can_reach_is_refused_with_its_remedy(state: StateDir, mode: int) -> None:
    state.create_seed()
    path = state.path / IDENTITY_FILE
    path.chmod(mode)
    with pytest.raises(UserError, match=f"chmod 600 {path}"):
        state.load_seed()
    path.chmod(0o600)
    assert state.load_seed() is not None


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"omninervous-identity-1 abcd\n", b"00" * 32, b"omninervous-identity-2 " + b"00" * 32]
)
def test_a_damaged_key_is_refused_and_left_alone(state: StateDir, content: bytes) -> None:
    path = state.path / IDENTITY_FILE
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UserError, match="damaged"):
        state.create_seed()
    assert path.read_bytes() == content


def test_a_directory_that_others_can_write_is_refused(state: StateDir) -> None:
    state.path.chmod(0o777)
    with pytest.raises(UserError, match=f"chmod 700 {state.path}"):
        state.create()


def test_a_file_is_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(UserError, match="not a directory"):
        StateDir(tmp_path / "state").create()


def test_json_is_replaced_as_a_whole_and_private(state: StateDir) -> None:
    state.write_json("marks.json", {"serial": 1})
    state.write_json("marks.json", {"serial": 2})
    assert state.read_json("marks.json") == {"serial": 2}
    assert mode_of(state.path / "marks.json") == 0o600
    assert os.listdir(state.path) == ["marks.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_damaged_json_counts_as_none(state: StateDir, content: bytes) -> None:
    (state.path / "marks.json").write_bytes(content)
    assert state.read_json("marks.json") == {}


def test_writing_into_a_directory_that_is_gone_fails_clearly(tmp_path: Path) -> None:
    with pytest.raises(SystemFailure, match=r"marks\.json cannot be written"):
        StateDir(tmp_path / "gone").write_json("marks.json", {})


def test_the_lock_is_for_one_process_and_its_refusal_names_that(state: StateDir) -> None:
    held = state.lock()
    with pytest.raises(UserError, match=rf"pid {os.getpid()}\b.*--state-dir"):
        state.lock()
    held.release()
    held.release()
    state.lock().release()


def test_a_killed_process_holds_no_lock(state: StateDir) -> None:
    script = (
        "import sys, time; from omninervous.hostos.state import StateDir; "
        "held = StateDir(sys.argv[1]).lock(); print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(state.path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"pid {process.pid}"):
            state.lock()
        process.kill()
        process.wait()
    state.lock().release()


def test_the_default_directory_follows_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_state_dir() == Path("/var/lib/omninervous")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/srv/x/state")
    assert default_state_dir() == Path("/srv/x/state/omninervous")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # the XDG specification: then it is to be ignored
    monkeypatch.setenv("HOME", "/srv/x")
    assert default_state_dir() == Path("/srv/x/.local/state/omninervous")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)  # whom no /etc/passwd knows
    with pytest.raises(UserError, match="set HOME"):
        default_state_dir()
