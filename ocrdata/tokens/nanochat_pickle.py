"""nanochat's `tokenizer.pkl`, read without executing it.

A pickle is a program. The one here may name `tiktoken.core.Encoding` and nothing else, and even
that name gives an inert stand-in which only keeps the state it is handed. Before it is run it is
walked: only the steps that make such an object are admitted, in numbers that cost no more than
some times the file's own size.
"""

from __future__ import annotations

import pickle
import pickletools
from collections import Counter
from contextlib import suppress
from io import BytesIO
from typing import Any

from ocrdata.errors import UsageError
from ocrdata.tokens.vocabulary import Ranks


class _State:
    """Stands in for `tiktoken.Encoding` while unpickling: it keeps the state and does nothing."""

    def __init__(self) -> None:
        self.value: Any = None

    def __setstate__(self, value: Any) -> None:
        self.value = value


class _Unpickler(pickle.Unpickler):
    """Admits the name `tiktoken.core.Encoding` and nothing else, and gives `_State` for it."""

    def find_class(self, module: str, name: str) -> type[_State]:
        if (module, name) in (("tiktoken.core", "Encoding"), ("tiktoken", "Encoding")):
            return _State
        raise UsageError(
            f"this pickle asks for {module}.{name}; only a pickled tiktoken.Encoding is read, "
            "and nothing in it was executed"
        )


_STEPS = frozenset(
    (
        *("PROTO", "FRAME", "STOP", "MARK", "NONE", "BUILD"),
        *("GLOBAL", "STACK_GLOBAL", "EMPTY_TUPLE", "NEWOBJ", "EMPTY_DICT", "SETITEM", "SETITEMS"),
        *("BININT", "BININT1", "BININT2", "BINBYTES", "SHORT_BINBYTES", "BINUNICODE"),
        *("SHORT_BINUNICODE", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"),
    )
)
"""All that a pickled `tiktoken.Encoding` has, of protocol 3 to 5 (pickletools names them). Tuples
are not among them: nested and shared, as a key of a dict, n of them take 2^n steps to hash."""

_FEW = frozenset(("GLOBAL", "STACK_GLOBAL", "NEWOBJ", "EMPTY_DICT"))
MOST_OBJECTS = 16
"""Of each of these a pickle may have so many: one object of three dicts needs no more, and an empty
dict takes a byte in the file and 64 in memory."""


def _refused_step(data: bytes) -> tuple[int, str]:
    """Where the first step of a pickle is that is not admitted, in bytes, and why; `(len(data),
    "")` where all are. Raises ValueError, and others, for what is no pickle."""
    memos, seen = 0, Counter[str]()
    for step, argument, at in pickletools.genops(data):
        name = step.name
        place = at or 0
        if name not in _STEPS:
            return place, f"it holds the step {name} at byte {place:,}, which no such object needs"
        if name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            # Python numbers them in order, and makes room for all numbers up to one it is told.
            if argument is not None and argument > memos:
                return place, f"it numbers its value {memos:,} as {argument:,} at byte {place:,}"
            memos += 1
        elif name in _FEW:
            seen[name] += 1
            if seen[name] > MOST_OBJECTS:
                return place, f"it holds more than {MOST_OBJECTS} steps {name}, at byte {place:,}"
    return len(data), ""


def _load(data: bytes) -> Any:
    """What a pickle of admitted steps gives. Raises UsageError, and nearly anything."""
    stop, why = _refused_step(data)
    if not why:
        return _Unpickler(BytesIO(data)).load()
    # What stands before is admitted: run up to there (a "." stops), it tells of a name that it
    # asks for.
    with suppress(pickle.UnpicklingError):
        _Unpickler(BytesIO(data[:stop].ljust(len(data), b"."))).load()
    raise UsageError(f"this pickle is not one of a tiktoken.Encoding: {why}")


def read_pickled_encoding(data: bytes) -> tuple[Ranks, dict[str, int]]:
    """Vocabulary and special tokens of a pickled `tiktoken.Encoding` (pickle protocol 3 or newer).

    Raises UsageError for any other pickle; nothing in it is executed.
    """
    try:
        value = _load(data)
    except UsageError:
        raise
    except Exception as exc:  # a damaged pickle raises nearly anything
        raise UsageError(f"not a readable pickle: {type(exc).__name__}: {exc}") from exc
    state = value.value if isinstance(value, _State) else None
    if isinstance(state, str):
        raise UsageError(
            f"this pickle holds only the name of an encoding ({state}), which tiktoken would "
            "download; save its ranks as a .tiktoken file and give that"
        )
    # Not indexed by what mypy could know: whatever it is, the errors below say so.
    try:
        ranks, specials, pattern = (
            dict(state["mergeable_ranks"]),  # type: ignore[index]
            dict(state["special_tokens"]),  # type: ignore[index]
            state["pat_str"],  # type: ignore[index]
        )
    except (TypeError, KeyError, ValueError) as exc:
        raise UsageError("this pickle is not a tiktoken.Encoding with ranks and pattern") from exc
    well_typed = (
        all(type(token) is bytes and type(rank) is int for token, rank in ranks.items())
        and all(type(name) is str and type(id_) is int for name, id_ in specials.items())
        and type(pattern) is str
    )
    if not well_typed or not ranks:
        raise UsageError("this pickle's tiktoken.Encoding has ranks or specials of a wrong type")
    return Ranks(ranks, pattern), specials
