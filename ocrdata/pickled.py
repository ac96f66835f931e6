"""nanochat's `tokenizer.pkl`, read without executing it.

A pickle is a program. The one here may name `tiktoken.core.Encoding` and nothing else, and even
that name gives an inert stand-in which only keeps the state it is handed.
"""

from __future__ import annotations

import pickle
from io import BytesIO
from typing import Any

from ocrdata.errors import UsageError
from ocrdata.vocabulary import Ranks


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

    def persistent_load(self, pid: Any) -> Any:
        raise UsageError("this pickle refers to objects outside itself")


def read_pickled_encoding(data: bytes) -> tuple[Ranks, dict[str, int]]:
    """Vocabulary and special tokens of a pickled `tiktoken.Encoding` (pickle protocol 3 or newer).

    Raises UsageError for any other pickle; nothing in it is executed.
    """
    try:
        value = _Unpickler(BytesIO(data)).load()
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
