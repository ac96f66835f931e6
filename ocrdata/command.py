"""What every command line here shares: one-line errors, exit statuses, human numbers.

Exit status 0 is success, 1 a failure, 2 a mistake in what was typed, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from ocrdata.errors import OcrError


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, with flags never guessed from their beginnings."""

    def __init__(self, *, prog: str, description: str, add_help: bool = True) -> None:
        super().__init__(
            prog=prog,
            add_help=add_help,
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """One line to standard error, exit status 2."""
        self.exit(2, f"{self.prog}: error: {message} (--help shows what can be given)\n")


def run(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a command's `main(arguments)` and end the process with its status.

    An `OcrError` is printed as its message alone; anything else is a bug and keeps its traceback.
    """
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except OcrError as exc:
        print(f"error: {exc}", file=sys.stderr)
        status = exc.exit_status
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        # Who read our output has gone (`... | head`); keep the interpreter from flushing again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)
