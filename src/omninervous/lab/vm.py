"""A virtual machine with another kernel, joined to a namespace of the lab by a TAP: for peers that live in a kernel.

The guest is a kernel image, the modules a test asks for, a busybox and a shell script; no disk, no distribution.
It talks to the test over its serial line: the script's output, then a line `exit N`. qemu runs under software
emulation (TCG), so nothing here is fit for measuring.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from omninervous.errors import SystemFailure

__all__ = ["GuestKernel", "build_initramfs", "qemu_command"]

_INIT = """#!/bin/sh
export PATH=/bin:/sbin
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
echo 1 >/proc/sys/kernel/printk
while read -r module; do insmod "$module" || echo "insmod $module failed"; done </modules
ip link set lo up
(. /script); echo "exit $?"
poweroff -f
"""


@dataclass(frozen=True, slots=True)
class GuestKernel:
    """An unpacked Debian kernel package."""

    root: Path
    """Where the package was unpacked: holds `boot/` and `lib/modules/`."""
    release: str
    """`uname -r` of the guest."""

    @classmethod
    def find(cls, root: Path) -> GuestKernel:
        """The one kernel below `root`; SystemFailure with the remedy when there is none."""
        releases = sorted(path.name for path in (root / "lib" / "modules").glob("*"))
        if not releases:
            raise SystemFailure(f"no guest kernel below {root}: `make soak` fetches one from Debian's packages")
        return cls(root, releases[-1])

    @property
    def image(self) -> Path:
        """The bootable kernel."""
        return self.root / "boot" / f"vmlinuz-{self.release}"

    def modules(self, names: Iterable[str]) -> list[Path]:
        """Files of these modules and all that they depend on, in loading order."""
        base = self.root / "lib" / "modules" / self.release
        _run(["depmod", "-b", str(self.root), self.release])
        depends = dict(line.split(":", 1) for line in (base / "modules.dep").read_text().splitlines())
        ordered: list[str] = []
        for name in names:
            path = next((p for p in depends if re.sub("-", "_", Path(p).name).startswith(f"{name}.ko")), None)
            if path is None:
                continue  # built into this kernel
            ordered += [p for p in [*reversed(depends[path].split()), path] if p not in ordered]
        return [base / path for path in ordered]


def build_initramfs(
    kernel: GuestKernel,
    out: Path,
    modules: Iterable[str],
    programs: Iterable[str],
    script: str,
    files: Iterable[Path] = (),
) -> None:
    """Write an initramfs to `out`: busybox, `programs` with their shared libraries, `modules`, `script`, and `files` at
    the paths that they have here. It is not compressed: an emulated processor would take minutes for that."""
    tree = out.with_suffix(".tree")
    shutil.rmtree(tree, ignore_errors=True)
    for folder in ("bin", "sbin", "proc", "sys", "dev", "tmp", "run", "lib/modules"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(_program("busybox"), tree / "bin" / "busybox")
    _run(["chroot", str(tree), "/bin/busybox", "--install", "-s", "/bin"])
    for program in programs:
        _copy_program(_program(program), tree)
    for path in files:
        _copy_file(path, tree)
    lines = []
    for path in kernel.modules(modules):
        shutil.copy(path, tree / "lib" / "modules" / path.name)
        lines.append(f"/lib/modules/{path.name}\n")
    (tree / "modules").write_text("".join(lines))
    (tree / "script").write_text(script)
    (tree / "init").write_text(_INIT)
    (tree / "init").chmod(0o755)
    names = "\0".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*"))).encode()
    archive = subprocess.run(
        ["cpio", "--null", "-o", "-H", "newc", "--quiet"], cwd=tree, input=names, capture_output=True, check=True
    ).stdout
    out.write_bytes(archive)
    shutil.rmtree(tree)


def qemu_command(kernel: GuestKernel, initramfs: Path, tap: str, mac: str, *, memory_mib: int = 256) -> list[str]:
    """The qemu command whose guest has `tap` of its own namespace as eth0, and its serial line on stdout."""
    return [
        *("qemu-system-x86_64", "-accel", "tcg", "-cpu", "max,-la57,-pku", "-m", str(memory_mib)),
        *("-nodefaults", "-no-reboot"),
        *("-kernel", str(kernel.image), "-initrd", str(initramfs), "-append", "console=ttyS0 quiet panic=-1"),
        *("-display", "none", "-serial", "stdio", "-netdev", f"tap,id=n0,ifname={tap},script=no,downscript=no"),
        *("-device", f"virtio-net-pci,netdev=n0,mac={mac},romfile="),
    ]


def _copy_file(path: Path, tree: Path) -> None:
    """A file or a symbolic link, and the libraries of a shared object."""
    target = tree / path.relative_to("/")
    if path.is_dir() or target.is_symlink() or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # With its time: compiled Python is believed only if its source's time is as it was.
    shutil.copy2(path, target, follow_symlinks=False)
    if ".so" in path.suffixes:
        _copy_libraries(path, tree)


def _copy_program(program: Path, tree: Path) -> None:
    target = tree / "bin" / program.name
    target.unlink(missing_ok=True)
    shutil.copy(program, target)
    _copy_libraries(program, tree)


def _copy_libraries(program: Path, tree: Path) -> None:
    for library in _libraries(program):
        copy = tree / library.relative_to("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library.resolve(), copy)


def _libraries(program: Path) -> Iterator[Path]:
    listing = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    return (Path(path) for path in re.findall(r"(/\S+) \(0x", listing))


def _program(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise SystemFailure(f"{name} is not installed: `make soak` installs what virtual machines need")
    return Path(found)


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise SystemFailure(
            f"{command[0]} is not installed: `make soak` installs what virtual machines need"
        ) from error
    except subprocess.CalledProcessError as error:
        raise SystemFailure(f"{' '.join(command)}: {error.stderr.strip()}") from error
