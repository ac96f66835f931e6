"""The first thing that a program of this project calls. Imports next to nothing before it does."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import NoReturn


def run_program(command: Callable[[Sequence[str]], int] | str) -> NoReturn:
    """Run a command as `ocrdata.runtime.cli.run` does; Ctrl-C prints no traceback before that has
    been imported either, but ends the process at once (status 130 in a shell)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run` takes over
    from ocrdata.runtime.cli import run

    run(command)
