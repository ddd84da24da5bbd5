"""A TAP device: the kernel's end of omni0 (Linux, Documentation/networking/tuntap.rst)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from pathlib import Path

from omninervous.errors import SystemFailure, UserError

__all__ = ["TUN_DEVICE", "Tap", "tap_holder"]

TUN_DEVICE = "/dev/net/tun"

# <linux/if_tun.h>
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_TUN_EXCL = 0x8000
_IFF_MULTI_QUEUE = 0x0100
_IFREQ = struct.Struct("16sH22x")


class Tap:
    """An open, non-blocking TAP. It lives as long as its descriptors: the end of the process removes it."""

    def __init__(self, descriptors: list[int], name: str) -> None:
        self._descriptors = descriptors
        self.name = name

    @classmethod
    def create(cls, name: str, *, offloads: bool = False, queues: int = 1) -> Tap:
        """A new interface of that name; UserError if there is one already. With `offloads`, every frame has a virtio
        header before it."""
        flags = _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if offloads else 0) | (_IFF_MULTI_QUEUE if queues > 1 else 0)
        tap = cls([_open(name, flags | _IFF_TUN_EXCL)], name)
        try:
            while len(tap._descriptors) < queues:
                tap._descriptors.append(_open(name, flags))
        except (UserError, SystemFailure):
            tap.close()
            raise
        return tap

    def fileno(self) -> int:
        """Of the first queue."""
        return self._descriptors[0]

    @property
    def queues(self) -> tuple[int, ...]:
        """The descriptor of each queue."""
        return tuple(self._descriptors)

    def close(self) -> None:
        """Remove the interface; idempotent."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    @staticmethod
    def remove_leftover(name: str) -> None:
        """Remove a persistent TAP that nobody holds. UserError naming its holder if somebody does."""
        try:
            descriptor = _open(name, _IFF_TAP | _IFF_NO_PI)
        except UserError as error:
            holder = tap_holder(name)
            raise UserError(
                f"interface {name} is in use{f' by {holder}' if holder else ''}: choose another name with --dev"
            ) from error
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 0)
        os.close(descriptor)


def _open(name: str, flags: int) -> int:
    try:
        descriptor = os.open(TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"{TUN_DEVICE} cannot be opened: {error.strerror}") from error
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EBUSY, errno.EEXIST, errno.EINVAL):
            raise UserError(f"interface {name} exists already: choose another name with --dev") from error
        if error.errno == errno.EPERM:
            raise UserError(f"making {name} needs CAP_NET_ADMIN: run as root (sudo)") from error
        raise SystemFailure(f"interface {name}: {error.strerror}") from error
    return descriptor


def tap_holder(name: str) -> str | None:
    """`name (pid N)` of a process that holds the TAP, None if that cannot be seen (proc(5): fdinfo says `iff:`)."""
    wanted, ours = f"iff:\t{name}", os.stat("/proc/self/ns/net").st_ino
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # Other network namespaces have interfaces of the same name.
            if os.stat(process / "ns" / "net").st_ino == ours and _holds(process, wanted):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue
    return None


def _holds(process: Path, wanted: str) -> bool:
    for descriptor in os.listdir(process / "fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            tap = os.readlink(process / "fd" / descriptor) == TUN_DEVICE
            if tap and wanted in (process / "fdinfo" / descriptor).read_text().splitlines():
                return True
    return False
