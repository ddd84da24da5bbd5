"""The control socket: how `omni` talks to a running daemon.

A Unix stream socket `control.sock` (0600) in the state directory; one JSON object a line, both ways::

    -> {"command": "status", ...arguments}
    <- {"ok": true, "result": {...}}   or   {"ok": false, "error": "one sentence", "bad_input": true}

`bad_input` says whose fault it was (UserError): the asker ends with status 2 then, else with 1.

A connection may carry several requests, one after the other. Whoever may open the socket may ask: its mode is the
access control.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omninervous.errors import OmniError, SystemFailure, UserError

__all__ = ["SOCKET_NAME", "ControlServer", "Handler", "NoDaemon", "request"]

SOCKET_NAME = "control.sock"
REQUEST_LIMIT = 65536
"""Bytes of one request line."""
MAX_CONNECTIONS = 16
_UNIX_PATH_LIMIT = 100
"""sun_path holds 108 bytes on Linux, 104 on macOS; state directories may be longer."""

Handler = Callable[[str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Gets command and arguments; gives the result object. An OmniError becomes the answer's `error`."""


class NoDaemon(SystemFailure):
    """Nobody listens at the socket of this state directory."""


class ControlServer:
    """Serves `handler` on the socket of a state directory that this process has locked."""

    def __init__(self, state_dir: Path, handler: Handler) -> None:
        self._dir = state_dir
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Bind. An old socket file is replaced: the lock says that its daemon is gone."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        beside = f".{SOCKET_NAME}.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            # Bound under another name, so that nobody can connect before the mode is right.
            with _short(self._dir) as directory:
                listener.bind(f"{directory}/{beside}")
            os.chmod(self._dir / beside, 0o600)
            listener.listen(MAX_CONNECTIONS)
            listener.setblocking(False)
            os.rename(self._dir / beside, self._dir / SOCKET_NAME)
            self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=REQUEST_LIMIT)
        except OSError as error:
            listener.close()
            (self._dir / beside).unlink(missing_ok=True)
            raise SystemFailure(f"control socket in {self._dir} cannot be made: {error.strerror or error}") from error

    async def close(self) -> None:
        """Remove the socket and hang up; idempotent."""
        if self._server is None:
            return
        (self._dir / SOCKET_NAME).unlink(missing_ok=True)
        self._server.close()
        for writer in list(self._connections):
            writer.close()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._server.wait_closed(), 1.0)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections.add(writer)
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):  # ValueError: a line beyond the limit
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            message = json.loads(line)
        except ValueError:
            return {"ok": False, "error": "the request is not JSON"}
        if not isinstance(message, dict) or not isinstance(message.get("command"), str):
            return {"ok": False, "error": "the request names no command"}
        command = message.pop("command")
        try:
            return {"ok": True, "result": await self._handler(command, message)}
        except OmniError as error:
            return {"ok": False, "error": str(error), "bad_input": isinstance(error, UserError)}


def request(state_dir: Path, command: str, timeout: float = 10.0, **arguments: str | int | bool) -> dict[str, Any]:
    """Ask the daemon of `state_dir`; its result. UserError if it finds fault with what was asked or configured,
    NoDaemon if none runs, SystemFailure if it is silent, says no, or is no daemon of ours."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            with _short(state_dir) as directory:
                connection.connect(f"{directory}/{SOCKET_NAME}")
            connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline()
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        raise NoDaemon(
            f"no daemon runs with state directory {state_dir}: start omni-daemon, or choose another with --state-dir"
        ) from error
    except PermissionError as error:
        raise SystemFailure(
            f"the daemon of {state_dir} belongs to another user: become that user (root: sudo), or name another "
            f"directory with --state-dir"
        ) from error
    except TimeoutError as error:
        raise SystemFailure(
            f"the daemon of {state_dir} does not answer within {timeout:.0f} s: is it suspended? Else end and start it"
        ) from error
    except OSError as error:
        raise SystemFailure(f"control socket of {state_dir}: {error.strerror or error}") from error
    if not line:
        raise SystemFailure(f"the daemon of {state_dir} ended while it was asked: see its log")
    return _result(state_dir, line)


def _result(state_dir: Path, line: bytes) -> dict[str, Any]:
    """What an answer holds; the error that it tells."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):  # ValueError: also text that is not UTF-8
        answer = None
    match answer:
        case {"ok": True, "result": dict(result)}:
            return result
        case {"ok": False, "error": str(sentence)}:
            raise (UserError if answer.get("bad_input") else SystemFailure)(sentence)
    raise SystemFailure(
        f"what listens at {SOCKET_NAME} of {state_dir} does not speak as our daemon does: are omni and omni-daemon of "
        f"one version?"
    )


@contextlib.contextmanager
def _short(directory: Path) -> Iterator[str]:
    """A name of the directory that fits into a socket address."""
    if len(os.fsencode(directory)) + len(SOCKET_NAME) + 32 < _UNIX_PATH_LIMIT:
        yield str(directory)
        return
    if not os.path.isdir("/proc/self/fd"):
        raise OSError(errno.ENAMETOOLONG, "the path of the state directory is too long for a socket")
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
