"""The control socket: requests, refusals, modes, long paths."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from omninervous.cli.diagnose import diagnose
from omninervous.errors import SystemFailure, UserError
from omninervous.hostos.control import SOCKET_NAME, ControlServer, NoDaemon, request

T = TypeVar("T")


async def answer(command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    if command == "echo":
        return {"said": dict(arguments)}
    raise UserError(f"what is {command}?")


def with_server(directory: Path, client: Callable[[], T]) -> T:
    """What `client`, in a thread, gets from a server on `directory`."""

    async def run() -> T:
        server = ControlServer(directory, answer)
        await server.start()
        try:
            return await asyncio.to_thread(client)
        finally:
            await server.close()
            await server.close()

    return asyncio.run(run())


def test_a_request_gets_its_result(tmp_path: Path) -> None:
    assert with_server(tmp_path, lambda: request(tmp_path, "echo", word="x", number=3)) == {
        "said": {"word": "x", "number": 3}
    }


def test_a_refusal_becomes_the_callers_error(tmp_path: Path) -> None:
    def client() -> None:
        with pytest.raises(UserError, match="what is nonsense?"):
            request(tmp_path, "nonsense")

    with_server(tmp_path, client)


def test_only_the_owner_may_open_it_and_nothing_stays_behind(tmp_path: Path) -> None:
    mode = with_server(tmp_path, lambda: (tmp_path / SOCKET_NAME).stat().st_mode)
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600
    assert list(tmp_path.iterdir()) == []


def test_one_connection_carries_several_requests_and_survives_nonsense(tmp_path: Path) -> None:
    def client() -> list[Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / SOCKET_NAME))
            connection.sendall(b'{"command": "echo"}\nnonsense\n[1]\n{"command": 7}\n{"command": "echo"}\n')
            with connection.makefile("rb") as stream:
                return [json.loads(stream.readline())["ok"] for _ in range(5)]

    assert with_server(tmp_path, client) == [True, False, False, False, True]


def test_an_endless_request_is_hung_up_on(tmp_path: Path) -> None:
    def client() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / SOCKET_NAME))
            try:
                connection.sendall(b"x" * 400_000)
                return connection.recv(100)
            except ConnectionError:
                return b""

    assert with_server(tmp_path, client) == b""


def test_paths_longer_than_a_socket_address_work(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    assert with_server(deep, lambda: request(deep, "echo")) == {"said": {}}


def test_the_socket_of_a_killed_daemon_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / SOCKET_NAME))
    with pytest.raises(NoDaemon, match="no daemon runs"):
        request(tmp_path, "echo")
    assert with_server(tmp_path, lambda: request(tmp_path, "echo")) == {"said": {}}


@pytest.mark.parametrize("name", [".", "missing"])
def test_without_a_daemon_the_error_says_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(NoDaemon, match=r"no daemon runs with state directory .*--state-dir"):
        request(tmp_path / name, "status")


def test_a_silent_daemon_is_not_waited_for_forever(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / SOCKET_NAME))
        silent.listen()
        with pytest.raises(SystemFailure, match="does not answer"):
            request(tmp_path, "status", timeout=0.05)


def test_a_daemon_that_hangs_up_is_an_error(tmp_path: Path) -> None:
    async def run() -> None:
        async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with await asyncio.start_unix_server(serve, tmp_path / SOCKET_NAME):
            with pytest.raises(SystemFailure, match=r"ended|Broken pipe|reset"):
                await asyncio.to_thread(request, tmp_path, "status")

    asyncio.run(run())


@pytest.mark.parametrize(
    "answer",
    [
        *(b"garbage", b"\xff\xfe", b"[]", b"{}", b"7", b"null", b"[" * 100_000),
        *(b'{"ok": true}', b'{"ok": true, "result": []}', b'{"ok": 1, "result": {}}', b'{"ok": false}'),
    ],
)
def test_what_does_not_speak_as_a_daemon_is_an_error_that_doctor_tells(tmp_path: Path, answer: bytes) -> None:
    async def run() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(answer + b"\n")
            writer.close()

        async with await asyncio.start_unix_server(serve, tmp_path / SOCKET_NAME):
            with pytest.raises(SystemFailure, match="does not speak as our daemon does"):
                await asyncio.to_thread(request, tmp_path, "status")
            (finding,) = await asyncio.to_thread(diagnose, tmp_path, "/dev/null")
            assert finding.check == "daemon" and "does not speak as our daemon does" in finding.text

    asyncio.run(run())
