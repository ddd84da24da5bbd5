"""Which Synapse engine runs, what it can do that peers must know, and how it starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from omninervous.core.dataplane import Aead
from omninervous.errors import UserError
from omninervous.hostos.udp import UdpSockets
from omninervous.synapse.port import Synapse
from omninervous.synapse.reference import ReferenceEngine

__all__ = ["AEADS", "ENGINES", "EngineChoice", "choose_engine", "start_engine"]

ENGINES = ("auto", "native", "reference")
AEADS = {
    "auto": (Aead.CHACHA20_POLY1305, Aead.AES_256_GCM),
    "aes": (Aead.AES_256_GCM,),
    "chacha": (Aead.CHACHA20_POLY1305,),
}
"""What `--aead` allows on lanes beside lane 0, whose AEAD is WireGuard's."""
EXPRESS_LANE = 7
"""docs/PROTOCOL.md, lanes."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine before it starts."""

    name: str
    offloads: bool
    """It takes super-frames, so its TAP must be opened with virtio headers."""
    lanes: tuple[int, ...]
    """Lanes beside lane 0 that it receives on."""
    aeads: tuple[Aead, ...]
    """What it can seal those lanes with."""
    bulk_queues: int = 0
    """Beside an express queue; 0: one queue carries everything."""
    single_because: str = ""
    """Why there is one queue only; empty if there are several."""

    @property
    def queues(self) -> int:
        """Queues of the TAP, and sockets of each family."""
        return 1 + self.bulk_queues


def choose_engine(wanted: str, bulk_queues: int = 1, aead: str = "auto") -> EngineChoice:
    """`wanted`: one of ENGINES, `aead`: one of AEADS. `auto` is the native engine wherever it can run, and AES where
    the processor has instructions for it. UserError if it has not, and AES is asked for."""
    if wanted == "reference" or (wanted == "auto" and not sys.platform.startswith("linux")):
        if aead == "aes":
            raise UserError("--aead aes: the reference engine has ChaCha20-Poly1305 only: leave --aead out")
        because = "the reference engine has one queue"
        return EngineChoice("reference", False, (), (Aead.CHACHA20_POLY1305,), single_because=because)
    from omninervous._native import hardware_aes, steering_error

    if aead == "aes" and not hardware_aes():
        raise UserError(
            "--aead aes: this processor has no instructions for it, ChaCha20-Poly1305 is faster: leave it out"
        )
    aeads = AEADS[aead] if aead != "auto" or hardware_aes() else AEADS["chacha"]
    error = steering_error()
    if error is not None:
        because = f"this kernel or these privileges (CAP_BPF) allow no program that divides frames: {error}"
        return EngineChoice("native", True, (1,), aeads, single_because=because)
    lanes = (*range(1, bulk_queues + 1), EXPRESS_LANE)
    return EngineChoice("native", True, lanes, aeads, bulk_queues)


def start_engine(
    choice: EngineChoice, taps: Sequence[int], sockets: Sequence[UdpSockets], own_mac: bytes, mtu: int
) -> Synapse:
    """The running engine. `taps` (opened as `choice.offloads` asks) and `sockets` have an entry per queue."""
    if choice.name == "native":
        from omninervous.synapse.native import NativeEngine

        return NativeEngine(list(zip(taps, map(tuple, sockets), strict=True)), own_mac)
    return ReferenceEngine(taps[0], tuple(sockets[0]), own_mac, mtu)
