"""Every error of OmniNervous: whose fault it is, and whether the machine that raised it survives.

| class            | whose fault     | what survives                                                     |
|------------------|-----------------|-------------------------------------------------------------------|
| `DecodeError`    | the sender      | everything; the bytes are dropped and counted                     |
| `RemoteError`    | the peer        | everything; the message is dropped and counted                    |
| `UserError`      | the operator    | nothing was changed; exit status 2, the message names the remedy  |
| `SystemFailure`  | the environment | what was begun is undone; exit status 1                           |

A broken invariant is a bug of ours and raises `AssertionError`; nothing catches it.
"""

from __future__ import annotations

__all__ = ["DecodeError", "OmniError", "RemoteError", "SystemFailure", "UserError"]


class OmniError(Exception):
    """Base of all errors that this package raises on purpose."""


class DecodeError(OmniError, ValueError):
    """Bytes from outside do not form the message they claim to be."""


class RemoteError(OmniError):
    """A well-formed message that a peer must not have sent (bad tag, replay, unknown key, ...).

    `reason` is a short snake_case name, used as the drop counter's label.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class UserError(OmniError):
    """Bad input from the operator. The text names the input and the remedy; exit status 2."""


class SystemFailure(OmniError):
    """The environment refused (a syscall, a missing device). The text names the remedy; exit status 1."""
