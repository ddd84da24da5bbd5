"""Runs a command line: every outcome becomes an exit status and at most one sentence on stderr.

| status | when                                                              |
|--------|-------------------------------------------------------------------|
| 0      | done                                                              |
| 1      | a failure at runtime                                              |
| 2      | bad input; nothing was begun                                      |
| 130    | Ctrl-C while there was nothing to end in order                    |
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from omninervous.errors import OmniError, UserError

__all__ = ["run"]

_INTERRUPTED = 130
_SENTENCE_LIMIT = 300


def run(command: click.Command, program: str, arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (else the process's); the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = command.main(words, prog_name=program, standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        return _complain(program, f"{error.format_message()} (see {program} --help)", 2)
    except UserError as error:
        return _complain(program, str(error), 2)
    except OmniError as error:
        return _complain(program, str(error), 1)
    except (KeyboardInterrupt, click.exceptions.Abort):
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone; keep the interpreter from complaining when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if "--verbose" in words or "-v" in words:
            traceback.print_exc()
        text = f"{type(error).__name__}: {error}".splitlines()[0][:_SENTENCE_LIMIT]
        return _complain(program, f"internal error, {text}; report it with the traceback: {program} --verbose ...", 1)


def _complain(program: str, sentence: str, status: int) -> int:
    text = " ".join(sentence.split())
    bold, plain = ("\x1b[1;31m", "\x1b[0m") if sys.stderr.isatty() and "NO_COLOR" not in os.environ else ("", "")
    print(f"{bold}{program}:{plain} {text}", file=sys.stderr, flush=True)
    return status
