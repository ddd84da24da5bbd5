"""The command line that the fuzz targets share: `python -m tests.fuzz.fuzz_x --seconds N --seed S`."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable


def main(run: Callable[[float, int], Counter[str]], text: str | None) -> None:
    """Run a target for so long from that seed, and print how often each outcome came. `text`: the target's own."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name, number in run(arguments.seconds, arguments.seed).most_common():
        print(f"{number:10} {name}")
