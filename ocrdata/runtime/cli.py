"""What every command line here shares: one-line errors and exit statuses.

Exit status 0 is success, 1 a failure, 2 a mistake in what was typed, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from typing import NoReturn

from ocrdata.errors import OcrError

_OUTPUT_REFUSED = (errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT)


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


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """A text as a terminal may have it: what would steer it, or is no text, is spelled out. Names
    of members come from anybody's tar."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


Main = Callable[[Sequence[str]], int]


def run(command: Main | str) -> NoReturn:
    """Run a command's `main(arguments)` and end the process with its status.

    A command given as a module's name is imported here, so that Ctrl-C while it loads is one line
    too. An `OcrError` is printed as its message alone; anything else is a bug and keeps its
    traceback.
    """
    try:
        if sys.stdout is None:  # closed by who started it
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process
        main = importlib.import_module(command).main if isinstance(command, str) else command
        status: int = main(sys.argv[1:])
        sys.stdout.flush()
    except OcrError as exc:
        print(f"error: {shown(str(exc))}", file=sys.stderr)
        status = exc.exit_status
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        status = 130
        if any(thread is not threading.main_thread() for thread in threading.enumerate()):
            sys.stdout.flush()
            os._exit(status)  # threads in the middle of something would be waited for
    except BrokenPipeError:
        # Who read our output has gone (`... | head`); keep the interpreter from flushing again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as exc:
        if exc.filename is not None or exc.errno not in _OUTPUT_REFUSED:
            raise
        print(f"error: the output cannot be written: {exc.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
    sys.exit(status)
