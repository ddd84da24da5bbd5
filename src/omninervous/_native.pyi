"""What the Rust workspace in native/ exports."""

from typing import Any, final

from typing_extensions import disjoint_base

__all__ = ["NativeDatapath", "NativeEngine", "Reflex", "Tables", "hardware_aes", "reflex_error", "steering_error"]

def hardware_aes() -> bool:
    """Whether AES-256-GCM runs on instructions of its own on this processor (AES-NI and PCLMULQDQ, or FEAT_AES)."""

def steering_error() -> str | None:
    """Why the program that divides a TAP's frames cannot be loaded; None if it can."""

def reflex_error() -> str | None:
    """Why the reflex lane's programs cannot run in this kernel, in a sentence; None if they can. It loads them."""

_Address = tuple[str, int]

@disjoint_base
class Tables:
    """Peers, sessions and counters of an engine, whoever drives it."""

    def set_peer(
        self,
        peer: bytes,
        link: str,
        mac: bytes | None,
        addresses: list[bytes],
        allowed: list[tuple[bytes, int]],
        mtu: int,
        fragment_id: int,
    ) -> None: ...
    def remove_peer(self, peer: bytes) -> None: ...
    def set_flood(self, peers: list[bytes]) -> None: ...
    def install_session(
        self,
        peer: bytes,
        local_index: int,
        remote_index: int,
        send_key: bytes,
        recv_key: bytes,
        expires_at: float,
    ) -> None: ...
    def open_lanes(self, local_index: int, lanes: list[tuple[int, int, bytes, bytes]], tx: list[int]) -> None: ...
    def select_session(self, peer: bytes, local_index: int) -> None: ...
    def remove_session(self, local_index: int) -> None: ...
    def set_endpoint(self, peer: bytes, endpoint: _Address, budget: int | None) -> None: ...
    def activity(
        self,
    ) -> list[tuple[bytes, int, tuple[float, float, float, float], tuple[int, int, int, int]]]: ...
    def counters(self) -> list[tuple[str, int]]: ...
    def learned(self) -> list[tuple[bytes, float]]: ...

@final
class NativeEngine(Tables):
    """Threads between a TAP (with virtio headers) and UDP sockets; the descriptors are duplicated."""

    def __new__(cls, queues: list[tuple[int, list[int]]], own_mac: bytes) -> NativeEngine: ...
    def fileno(self) -> int: ...
    def send_datagram(self, endpoint: _Address, data: bytes) -> None: ...
    def send_control(self, local_index: int, payload: bytes, endpoint: _Address | None) -> None: ...
    def send_frames(self, peer: bytes, frames: list[bytes]) -> None: ...
    def deliver_frames(self, frames: list[bytes]) -> None: ...
    def events(self) -> list[tuple[Any, ...]]: ...
    def close(self) -> None: ...

@final
class NativeDatapath(Tables):
    """The engine without threads and descriptors, for tests: time (boot-time seconds) and all input are arguments."""

    def __new__(cls, own_mac: bytes) -> NativeDatapath: ...
    def from_tap(self, now: float, vnet: bytes, frame: bytes) -> None: ...
    def from_underlay(self, now: float, host: str, port: int, data: bytes, ecn: int = 0) -> None: ...
    def send_datagram(self, endpoint: _Address, data: bytes) -> None: ...
    def send_control(self, now: float, local_index: int, payload: bytes, endpoint: _Address | None) -> None: ...
    def send_frames(self, now: float, peer: bytes, frames: list[bytes]) -> None: ...
    def deliver_frames(self, frames: list[bytes]) -> None: ...
    def timeout(self, now: float) -> None: ...
    def skip(self, local_index: int, lane: int, count: int) -> None: ...
    def take(self) -> tuple[list[tuple[_Address, bytes, int]], list[tuple[bytes, bytes]], list[tuple[Any, ...]]]: ...

@final
class Reflex:
    """The kernel lane of one edge: programs and maps in the kernel, which end with this object or with the process.

    `overlay` is the interface index of omni0, `mac1_key` BLAKE2s("mac1----" || own X25519 key). Nothing is attached at
    first.
    OSError is what the kernel refuses; times are boot-time seconds; unknown peers and indices are ignored."""

    def __new__(cls, overlay: int, own_mac: bytes, mac1_key: bytes, port: int, sessions: int = 2048) -> Reflex: ...
    def limit(self, rate: int) -> None:
        """Let so many initiations of a source pass, at once and in a second; 50 at first."""

    def trust_cookies(self, secret: bytes, until: float) -> None:
        """Know what the core's cookies are made with, until a boot-time second."""

    def attach_underlay(self, ifindex: int, mechanism: str) -> None:
        """Receive there: by `tc`, or `xdp` (in the driver) and tc."""

    def detach_underlay(self, ifindex: int) -> None: ...
    def attach_overlay(self) -> None: ...
    def detach_overlay(self) -> None: ...
    def set_peer(self, peer: bytes, mac: bytes | None, addresses: list[bytes], mtu: int) -> None: ...
    def remove_peer(self, peer: bytes) -> None: ...
    def install_session(self, peer: bytes, local_index: int, remote_index: int, expires_at: float) -> None:
        """Before its first datagram may come: those of other sessions die in the kernel."""

    def open_lane(self, local_index: int, send_key: bytes, recv_key: bytes, send: bool) -> bool:
        """Lane 8 of a session. The keys of a lane that is open stay. False: no room for one more."""

    def select_session(self, peer: bytes, local_index: int) -> None: ...
    def remove_session(self, local_index: int) -> None: ...
    def set_endpoint(self, peer: bytes, endpoint: _Address, proven: bool) -> None: ...
    def note_datagram(self, endpoint: _Address, data: bytes) -> None:
        """A handshake message or HELLO is about to be sent: let its answer in, for 6 s."""

    def watch(self, peer: bytes, on: bool) -> None:
        """Send to a peer by the bulk lane, where taps of the interface see it, or no longer."""

    def tick(self) -> None:
        """Look at our addresses and routes again, and wipe what has expired: once a second."""

    def fileno(self) -> int:
        """Readable while there are events."""

    def events(self) -> list[tuple[Any, ...]]: ...
    def activity(
        self,
    ) -> list[tuple[bytes, int, tuple[float, float, float, float], tuple[int, int, int, int]]]: ...
    def counters(self) -> list[tuple[str, int]]: ...
    def learned(self) -> list[tuple[bytes, float]]: ...
    def programs(self) -> list[tuple[str, str, int]]:
        """What is attached: program, hook, interface index."""

    def test_run(self, program: str, packet: bytes, repeat: int = 1) -> tuple[int, bytes, int]:
        """Run a program on a packet (BPF_PROG_TEST_RUN): verdict, packet afterwards, nanoseconds of one run."""

    def close(self) -> None:
        """Detach everything and wipe all keys. Idempotent."""
