"""`omni-daemon`: runs an edge or a Nucleus."""

from __future__ import annotations

import sys

from omninervous.hostos.process import hide_arguments, name_process

__all__ = ["main"]


def main() -> None:
    """The console script. The secret leaves the process title before anything slow is imported."""
    hide_arguments(("--secret",))
    name_process("omni-daemon")

    from omninervous.cli.daemon_command import omni_daemon
    from omninervous.cli.run import run

    sys.exit(run(omni_daemon, "omni-daemon"))


if __name__ == "__main__":
    main()
