"""A cable that is dead without a word: no link goes down, no address vanishes, nobody is told."""

from __future__ import annotations

import time

from omninervous.lab.namespaces import Namespace

__all__ = ["cut", "mend"]


def cut(where: Namespace, interface: str, only: str = "") -> float:
    """From now on nothing passes an interface, or nothing that the nftables expression `only` matches; when that was
    (`time.monotonic`). One cut per machine."""
    chains = ""
    for hook in ("ingress", "egress"):
        chains += f' chain {hook} {{\n  type filter hook {hook} device "{interface}" priority 0; policy accept;\n'
        chains += f"  {only} drop\n }}\n"
    where.nft(f"table netdev omni_cut {{\n{chains}}}\n")
    return time.monotonic()


def mend(where: Namespace) -> None:
    """Undo `cut`."""
    where.run("nft", "delete", "table", "netdev", "omni_cut")
