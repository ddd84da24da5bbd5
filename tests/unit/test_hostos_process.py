"""The process title and capabilities."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from omninervous.hostos.process import CAP_NET_ADMIN

SHOW_TITLE = (
    "from omninervous.hostos.process import hide_arguments; "
    "hid = hide_arguments(('--secret',)); "
    "print(hid, open('/proc/self/cmdline').read().replace(chr(0), ' '))"
)


def title(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", SHOW_TITLE, *arguments], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("words", [("--secret", "Sixteen-Chars-Min"), ("--secret=Sixteen-Chars-Min",)])
def test_a_secret_leaves_the_process_title(words: tuple[str, ...]) -> None:
    shown = title("--cluster", "fleet", *words, "--vip", "10.200.0.1")
    assert "Sixteen" not in shown
    assert "--cluster fleet --secret" in shown and "--vip 10.200.0.1" in shown
    assert shown.startswith("True")


def test_other_titles_are_left_alone() -> None:
    assert title("--secret-file", "path").startswith("False")


def test_a_secret_at_the_end_without_a_value_is_no_error() -> None:
    assert title("--secret").startswith("True")


def test_capabilities_are_those_of_this_process() -> None:
    script = f"from omninervous.hostos.process import has_capability as h; print(h({CAP_NET_ADMIN}))"
    plain = [sys.executable, "-c", script]
    without = ["setpriv", "--bounding-set=-net_admin", *plain] if os.geteuid() == 0 else plain
    assert subprocess.run(without, capture_output=True, text=True, check=True).stdout == "False\n"
