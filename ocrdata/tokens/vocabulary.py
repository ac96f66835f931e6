"""Vocabularies: byte-level BPE in the two forms people have it in.

Owner of how text without anything special becomes ids: tiktoken's ranks with a split pattern (what
nanochat has, and what we train), or a definition of `tokenizers`. It knows no special tokens and
reads no files; both are `ocrdata.tokens.tokenizer`'s.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import tiktoken
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from ocrdata.errors import OcrError, UsageError, first_line

NANOCHAT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
"""nanochat's split pattern: GPT-4's, with digits in groups of one or two instead of up to three."""

LARGEST_VOCABULARY = 1 << 24
"""Ids; the largest vocabularies in use have a quarter of a million."""

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@contextmanager
def _explain_panic() -> Iterator[None]:
    """A panic of a library in Rust, which is no Exception, becomes an OcrError."""
    try:
        yield
    except BaseException as exc:
        if type(exc).__name__ != "PanicException":
            raise
        raise OcrError(
            f"its split pattern cannot be applied to a text: {first_line(exc)}; use a pattern "
            "without nested repetitions"
        ) from exc


class Backend(Protocol):
    """What a vocabulary must do: `kind` and `body` describe it wholly, `size` ids come first."""

    kind: str
    size: int

    def encode(self, text: str) -> list[int]:
        """Ids of a text in which nothing is special."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""

    def body(self) -> dict[str, Any]:
        """The vocabulary as JSON values."""


class Ranks:
    """Byte-level BPE by ranks: the pair of neighbours whose bytes have the lowest rank merges."""

    kind = "ranks"

    def __init__(self, ranks: Mapping[bytes, int], pattern: str) -> None:
        missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
        if missing:
            raise UsageError(f"the ranks lack {len(missing)} of the 256 single bytes")
        if not all(type(rank) is int for rank in ranks.values()):
            raise UsageError("a rank is no integer")
        if max(ranks.values()) >= LARGEST_VOCABULARY:
            raise UsageError(f"a rank is {max(ranks.values()):,}, above {LARGEST_VOCABULARY:,}")
        if len(set(ranks.values())) != len(ranks) or min(ranks.values()) < 0:
            raise UsageError("two tokens have the same rank, or a rank is negative")
        self.ranks = dict(sorted(ranks.items(), key=lambda item: item[1]))
        self.pattern = pattern
        self.ids = frozenset(ranks.values())
        self.size = max(self.ids) + 1
        try:
            with _explain_panic():
                self._encoding = tiktoken.Encoding(
                    "ranks", pat_str=pattern, mergeable_ranks=self.ranks, special_tokens={}
                )
        except ValueError as exc:
            raise UsageError(f"the split pattern cannot be compiled: {exc}") from exc

    def encode(self, text: str) -> list[int]:
        """Ids of a text in which nothing is special."""
        with _explain_panic():
            return self._encoding.encode_ordinary(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""
        return self._encoding.decode(list(ids))

    def body(self) -> dict[str, Any]:
        """Pattern and tokens (base64) with their ranks, in the order of the ranks."""
        ranks = {base64.b64encode(token).decode(): rank for token, rank in self.ranks.items()}
        return {"pattern": self.pattern, "ranks": ranks}


class Definition:
    """A byte-level BPE as `tokenizers` defines it, with its special tokens read as plain text."""

    kind = "tokenizers"

    def __init__(self, definition: Mapping[str, Any]) -> None:
        self.definition = {
            **definition,
            "truncation": None,
            "padding": None,
            "post_processor": None,
        }
        model = definition.get("model")
        model = model if isinstance(model, dict) else {}
        parts = json.dumps([definition.get("pre_tokenizer"), definition.get("decoder")])
        if model.get("type") != "BPE" or "ByteLevel" not in parts:
            raise UsageError(
                f"it holds a {model.get('type')} model; a byte-level BPE is needed, "
                "others lose characters"
            )
        if model.get("dropout"):
            raise UsageError("its BPE has dropout: the same text would not give the same ids")
        try:
            with _explain_panic():
                self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(self.definition))
        except Exception as exc:  # the library raises bare Exception
            raise UsageError(f"`tokenizers` cannot read it: {exc}") from exc
        self._tokenizer.encode_special_tokens = True
        added = definition.get("added_tokens") or []
        self.added = {token["content"]: int(token["id"]) for token in added if token.get("special")}
        self.size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self._never = frozenset(self.added.values())

    def encode(self, text: str) -> list[int]:
        """Ids of a text in which nothing is special."""
        with _explain_panic():
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not self._never.isdisjoint(ids):
            raise OcrError("this tokenizer makes a special token of plain text; use another one")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def body(self) -> dict[str, Any]:
        """The definition, less what belongs to one use of it (truncation, padding)."""
        return {"definition": self.definition}


def train_ranks(texts: Iterable[str], size: int) -> Ranks:
    """Byte-level BPE of at most `size` tokens with nanochat's split pattern, by `tokenizers`.

    The same texts give the same ranks, whatever the number of threads. Each learned token is a
    merge of two earlier ones, so its place in the vocabulary is its rank.
    """
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(NANOCHAT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=0,  # as nanochat
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(texts, trainer)
    letters = _byte_letters()
    ranks = {
        bytes(letters[letter] for letter in token): rank for token, rank in bpe.get_vocab().items()
    }
    return Ranks(ranks, NANOCHAT_PATTERN)


def _byte_letters() -> dict[str, int]:
    """The letter that `tokenizers` (as GPT-2) writes for each byte, to the byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + number): byte for number, byte in enumerate(others)}
