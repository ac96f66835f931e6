"""The frame around every command: one-line errors, exit statuses, and figures as JSON.

Exit status 0: success. 1: failure. 2: invalid arguments. 130: Ctrl-C. With `--json` standard output
holds one JSON document and nothing else; progress and errors are on standard error.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import math
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from ocrdata.errors import OcrError

_OUTPUT_REFUSED = (errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT)


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors and without abbreviated flags."""

    def __init__(self, *, prog: str, description: str, add_help: bool = True) -> None:
        super().__init__(
            prog=prog,
            add_help=add_help,
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Print one line to standard error and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message} (--help lists the arguments)\n")


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """`text` with control characters escaped, so that it cannot control a terminal. Member names
    come from tars of any origin."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--json`, for a command that prints figures; it prints them with `print_json` then."""
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the figures as one JSON document, and nothing else, on standard output",
    )


def print_json(document: Mapping[str, Any]) -> None:
    """Print a document of dicts, lists, strings, numbers, booleans, None and paths.

    NaN and infinities, which JSON does not have, become null. The output is ASCII, so that any
    terminal and locale can hold every name, and a name cannot control a terminal.
    """
    print(json.dumps(_finite(document), indent=2, allow_nan=False, default=os.fspath))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value


Main = Callable[[Sequence[str]], int]


def run(command: Main | str) -> NoReturn:
    """Call a command's `main(arguments)` and exit the process with the status it returns.

    A command may be given as a module name: it is imported here, so that Ctrl-C during the import
    prints one line as well. For an `OcrError` only its message is printed; any other exception is
    a bug and keeps its traceback.
    """
    try:
        if sys.stdout is None:  # closed by the parent process
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
            os._exit(status)  # a normal exit would wait for the other threads
    except BrokenPipeError:
        # The reader of our output has exited (`... | head`); a last flush must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as exc:
        if exc.filename is not None or exc.errno not in _OUTPUT_REFUSED:
            raise
        print(f"error: cannot write the output: {exc.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
    sys.exit(status)
