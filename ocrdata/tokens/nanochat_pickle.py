"""Reads nanochat's `tokenizer.pkl`, a pickled `tiktoken.Encoding`, without executing it.

A pickle is a program. This one may be a few MiB long, may use only the opcodes that such an object
consists of, and may name only the class `tiktoken.Encoding`, for which it gets a stand-in that
stores its state and does nothing. Anything else raises UsageError.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from io import BytesIO
from typing import Any

from ocrdata.errors import UsageError
from ocrdata.tokens.vocabulary import Ranks

LARGEST_PICKLE = 4_000_000
"""Bytes: nanochat's 65,536 tokens take 0.8 to 1.1 MB, 262,144 tokens 3.6 MB. In memory the objects
take up to 18 times as much."""

MOST_COUNTED = 1 << 12
"""Strings, dicts and marks (each begins up to 1,000 items of a dict). An Encoding has one string
per special token, three dicts and one mark per 1,000 tokens. A dict or a mark is one byte in the
file and 72 in memory."""

REMEDY = "save its ranks as a .tiktoken file and pass that instead"


class _EncodingState:
    """Stands in for `tiktoken.Encoding` while unpickling: stores the state and does nothing."""

    value: Any = None  # of the class, because unpickling does not call __init__

    def __setstate__(self, value: Any) -> None:
        self.value = value


class _Opcodes(dict[int, Callable[[Any], None]]):
    """The method for each allowed opcode."""

    def __missing__(self, opcode: int) -> Callable[[Any], None]:
        raise UsageError(
            f"this pickle contains the opcode {bytes([opcode])!r}, which a pickled "
            f"tiktoken.Encoding (protocol 3 or newer) does not; {REMEDY}"
        )


def _counted(opcode: bytes) -> Callable[[Any], None]:
    """The method for an opcode of which few are needed; refuses one too many."""
    method: Callable[[Any], None] = pickle._Unpickler.dispatch[opcode[0]]

    def counted(self: _EncodingUnpickler) -> None:
        self.counted += 1
        if self.counted > MOST_COUNTED:
            raise UsageError(
                f"this pickle contains more than {MOST_COUNTED:,} strings, dicts and marks; "
                f"{REMEDY}"
            )
        method(self)

    return counted


class _EncodingUnpickler(pickle._Unpickler):
    """Unpickles one `tiktoken.Encoding`.

    Python's own implementation, because its opcodes can be restricted. No tuple but the empty one:
    n of them, nested and shared, take 2^n steps to hash. Nothing is memoized, because nothing in an
    Encoding is shared: an entry is one byte in the file and 80 in memory.
    """

    dispatch = _Opcodes(
        {
            opcode[0]: pickle._Unpickler.dispatch[opcode[0]]
            for opcode in (
                *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.NONE, pickle.BUILD),
                *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.EMPTY_TUPLE, pickle.NEWOBJ),
                *(pickle.SETITEM, pickle.SETITEMS, pickle.BININT, pickle.BININT1, pickle.BININT2),
                *(pickle.BINBYTES, pickle.SHORT_BINBYTES),
            )
        }
        | {
            opcode[0]: _counted(opcode)
            for opcode in (
                *(pickle.EMPTY_DICT, pickle.MARK, pickle.BINUNICODE, pickle.SHORT_BINUNICODE),
            )
        }
        | {
            pickle.MEMOIZE[0]: lambda self: None,
            pickle.BINPUT[0]: lambda self: self.read(1),
            pickle.LONG_BINPUT[0]: lambda self: self.read(4),
        }
    )

    def __init__(self, data: bytes) -> None:
        super().__init__(BytesIO(data))
        self.counted = 0

    def find_class(self, module: str, name: str) -> type[_EncodingState]:
        if (module, name) in (("tiktoken.core", "Encoding"), ("tiktoken", "Encoding")):
            return _EncodingState
        raise UsageError(
            f"this pickle names {module}.{name}; only a pickled tiktoken.Encoding is accepted, "
            "and nothing in it was executed"
        )


def read_pickled_encoding(data: bytes) -> tuple[Ranks, dict[str, int]]:
    """Vocabulary and special tokens of a pickled `tiktoken.Encoding` (pickle protocol 3 or newer).

    Raises UsageError for any other pickle; nothing in it is executed.
    """
    if len(data) > LARGEST_PICKLE:
        raise UsageError(
            f"this pickle has {len(data):,} bytes, above the limit of {LARGEST_PICKLE:,}; {REMEDY}"
        )
    try:
        value = _EncodingUnpickler(data).load()
    except UsageError:
        raise
    except Exception as exc:  # a corrupted pickle raises nearly anything
        raise UsageError(f"not a readable pickle: {type(exc).__name__}: {exc}") from exc
    state = value.value if isinstance(value, _EncodingState) else None
    if isinstance(state, str):
        raise UsageError(
            f"this pickle contains only the name of an encoding ({state}), which tiktoken would "
            f"download; {REMEDY}"
        )
    # mypy cannot know the type of the state, hence three times "ignore"; whatever it is, the errors
    # below report it.
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
