"""The frame around every command: one-line errors, exit statuses, and figures as JSON.

Exit status 0: success. 1: failure. 2: invalid arguments. 130: Ctrl-C. With `--json` standard output
holds one JSON document and nothing else; progress and errors are on standard error.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import json
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from typing import Any, NoReturn

from ocrdata.errors import OcrError, Problems

_OUTPUT_REFUSED = (errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT)


class Parser(argparse.ArgumentParser):
    """argparse with defaults in its help, without abbreviated flags, and with all faults of a
    command line told at once.

    Faults are raised as UsageErrors, a message each; `usage` replaces the list of all flags.
    """

    def __init__(
        self, *, prog: str, description: str, usage: str | None = None, add_help: bool = True
    ) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            add_help=add_help,
            description=description,
            allow_abbrev=False,
            formatter_class=_HelpFormatter,
            exit_on_error=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found."""
        raise argparse.ArgumentError(None, message)

    def parse_args(  # type: ignore[override]  # argparse's overloads are for other namespaces
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """The typed values. Raises UsageError, or UsageErrors for several faults."""
        typed, problems = self.parse_with_problems(args, namespace)
        problems.raise_all()
        return typed

    def parse_with_problems(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, Problems]:
        """The typed values and what is wrong with them; a flag with a wrong value has its default.

        For a command that goes on to check the values that are right.
        """
        typed, unknown = self.parse_known_args(args, namespace)
        problems = Problems()
        for message in vars(typed).pop(_FAULTS, ()):
            problems.add(message)
        if unknown:
            near = self._nearest(unknown, typed)
            hint = f"did you mean {near}?" if near else "--help lists the flags"
            problems.add(f"unrecognized arguments: {' '.join(unknown)} ({hint})")
        return typed, problems

    def _nearest(self, unknown: Sequence[str], typed: argparse.Namespace) -> str:
        """The flags, of this parser and of the subcommand typed, that unknown ones resemble most;
        "" if none does."""
        known = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                chosen = action.choices.get(getattr(typed, action.dest, None) or "")
                known += chosen._option_string_actions if chosen else []
        flags = [word.partition("=")[0] for word in unknown if word.startswith("--")]
        near = (difflib.get_close_matches(flag, known, 1) for flag in flags)
        return " and ".join(match for found in near for match in found)

    def parse_known_args(  # type: ignore[override]  # as for parse_args
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's, but goes on after a fault: the messages are in the namespace under
        `_FAULTS`, as argparse keeps there what a subcommand did not recognize."""
        before = {action: dict(vars(action)) for action in self._actions}
        given = vars(namespace) if namespace else {}
        messages: list[str] = []
        loose: list[argparse.Action] = []
        try:
            while True:
                try:
                    typed, unknown = super().parse_known_args(args, argparse.Namespace(**given))
                    break
                except argparse.ArgumentError as exc:
                    messages.append(str(exc))
                    if not self._loosen(exc, loose):
                        typed, unknown = argparse.Namespace(**given), []
                        break
        finally:
            for action, attributes in before.items():
                vars(action).update(attributes)
        for action in loose:
            setattr(typed, action.dest, action.default)
        if messages:
            setattr(typed, _FAULTS, [*messages, *getattr(typed, _FAULTS, ())])
        return typed, unknown

    def _loosen(self, fault: argparse.ArgumentError, loose: list[argparse.Action]) -> bool:
        """Let the argument at fault take any value, then any number of them, so that the next fault
        is found. False if nothing more can be found."""
        if fault.argument_name is None:
            required = [action for action in self._actions if action.required]
            for action in required:
                action.required = False
            return bool(required)
        for action in self._actions:
            names = ("/".join(action.option_strings), action.metavar, action.dest)
            if fault.argument_name not in names or isinstance(action, argparse._SubParsersAction):
                continue
            if action not in loose:
                action.type = action.choices = None
            elif action.option_strings and action.nargs != "*":
                action.nargs = "*"
            else:
                break
            loose.append(action)
            return True
        return False


_FAULTS = "faults of this command line"


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Adds its default to the help of every flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help or "", action.default
        told = default is None or default is False or default in ("", argparse.SUPPRESS)
        if told or "default" in text or not action.option_strings or isinstance(default, list):
            return text
        return f"{text} (default: {str(default).replace('%', '%%')})"


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


def text_aside(json: bool) -> AbstractContextManager[object]:
    """With `json`, what is printed in this context goes to standard error: the document is to be
    alone on standard output."""
    return redirect_stdout(sys.stderr) if json else nullcontext()


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
    prints one line as well. For an `OcrError` only its messages are printed; any other exception
    is a bug and keeps its traceback.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see `run_program`
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if sys.stdout is None:  # closed by the parent process
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process
        main = importlib.import_module(command).main if isinstance(command, str) else command
        status: int = main(sys.argv[1:])
        sys.stdout.flush()
    except OcrError as exc:
        for message in exc.messages:
            print(f"error: {shown(message)}", file=sys.stderr)
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
