"""Byte-level BPE vocabularies in two forms.

They encode plain text: by tiktoken's ranks with a split pattern (nanochat's form, and that of the
vocabularies trained here), or by a definition of `tokenizers`. Special tokens and files are left to
`ocrdata.tokens.tokenizer`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import tiktoken
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from ocrdata.errors import OcrError, UsageError, first_line
from ocrdata.tokens.round_trip import lost_letters

_WORDS, _REST = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}",
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
)
NANOCHAT_PATTERN = _WORDS + _REST
"""nanochat's split pattern: GPT-4's, with digits in groups of at most two instead of three."""

LARGEST_VOCABULARY = 1 << 24
"""Ids. The largest vocabularies in use have a quarter of a million."""

GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

_SINGLE = re.compile(r"([A-Za-z0-9](-[A-Za-z0-9])?)+")


def split_pattern(single: str = "") -> str:
    """nanochat's split pattern, but for the characters of `single`, which stand alone: no token
    joins one of them with anything.

    `single` has ASCII letters and digits and ranges of them, as in "A-Z0-9". A model that reads
    must spell what it has never seen; with one token a character each image of a character has one
    answer. Raises UsageError for another form.
    """
    if not single:
        return NANOCHAT_PATTERN
    if not _SINGLE.fullmatch(single) or any(
        single[at - 1] > single[at + 1] for at, sign in enumerate(single) if sign == "-"
    ):
        raise UsageError(
            f"--single {single!r}: give ASCII letters and digits, and ranges of them, as in A-Z0-9"
        )
    one = f"[{single}]"
    words = _WORDS.replace(r"\p{L}+", rf"(?:(?!{one})\p{{L}})+")
    words = words.replace(r"\p{N}{1,2}", rf"(?:(?!{one})\p{{N}}){{1,2}}")
    return f"{one}|{words}{_REST}"


def _matches_all(pattern: str) -> bool:
    """Whether a split pattern is known to match every character: a letter, a number, a space or
    none of these."""
    if pattern in (NANOCHAT_PATTERN, GPT2_PATTERN):
        return True
    single, bracket, _ = pattern.removeprefix("[").partition("]|")
    return bool(bracket and _SINGLE.fullmatch(single)) and pattern == split_pattern(single)


@contextmanager
def _explain_panic() -> Iterator[None]:
    """Turns a panic of a Rust library, which is not an Exception, into an OcrError."""
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
    """A vocabulary. `kind` and `body` describe it completely; `size` is its largest id plus one;
    `complete` says that it is known to give every text back."""

    kind: str
    size: int
    complete: bool

    def encode(self, text: str) -> list[int]:
        """Ids of a text; special tokens in it are plain text."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""

    def cause(self, text: str) -> str:
        """Which part of the vocabulary changes a text that is not given back, in words."""

    def body(self) -> dict[str, Any]:
        """The vocabulary as a JSON object."""


class Ranks:
    """Byte-level BPE by ranks: the neighbouring tokens whose joined bytes have the lowest rank are
    merged first."""

    kind = "ranks"

    def __init__(self, ranks: Mapping[bytes, int], pattern: str) -> None:
        _refuse_missing("the ranks lack", [n for n in range(256) if bytes([n]) not in ranks])
        if not all(type(rank) is int for rank in ranks.values()):
            raise UsageError("a rank is not an integer")
        if max(ranks.values()) >= LARGEST_VOCABULARY:
            raise UsageError(f"a rank is {max(ranks.values()):,}, above {LARGEST_VOCABULARY:,}")
        if len(set(ranks.values())) != len(ranks) or min(ranks.values()) < 0:
            raise UsageError("two tokens have the same rank, or a rank is negative")
        self.ranks = dict(sorted(ranks.items(), key=lambda item: item[1]))
        self.pattern = pattern
        self.ids = frozenset(ranks.values())
        self.size = max(self.ids) + 1
        self.complete = _matches_all(pattern)
        try:
            with _explain_panic():
                self._encoding = tiktoken.Encoding(
                    "ranks", pat_str=pattern, mergeable_ranks=self.ranks, special_tokens={}
                )
        except ValueError as exc:
            raise UsageError(f"the split pattern cannot be compiled: {exc}") from exc

    def encode(self, text: str) -> list[int]:
        """Ids of a text; special tokens in it are plain text."""
        with _explain_panic():
            return self._encoding.encode_ordinary(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; invalid UTF-8 becomes U+FFFD."""
        return self._encoding.decode(list(ids))

    def cause(self, text: str) -> str:
        """The split pattern: characters that it does not match are dropped."""
        return f"its split pattern {self.pattern!r}"

    def body(self) -> dict[str, Any]:
        """The pattern, and the rank of each token (base64) in the order of ranks."""
        ranks = {base64.b64encode(token).decode(): rank for token, rank in self.ranks.items()}
        return {"pattern": self.pattern, "ranks": ranks}


class Definition:
    """A byte-level BPE defined by the JSON of `tokenizers`; its special tokens in a text are plain
    text."""

    kind = "tokenizers"
    complete = False

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
                f"the model is {model.get('type')}, not a byte-level BPE; only byte-level BPE can "
                "encode every text"
            )
        vocabulary = model.get("vocab")
        if isinstance(vocabulary, dict):
            _refuse_missing(
                "its vocabulary lacks",
                [byte for letter, byte in byte_letters().items() if letter not in vocabulary],
            )
        if model.get("dropout"):
            raise UsageError("its BPE has dropout, so the same text could give different ids")
        try:
            with _explain_panic():
                self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(self.definition))
        except Exception as exc:  # the library raises bare Exception
            raise UsageError(f"`tokenizers` rejects this definition: {exc}") from exc
        self._tokenizer.encode_special_tokens = True
        added = definition.get("added_tokens") or []
        self.added = {token["content"]: int(token["id"]) for token in added if token.get("special")}
        self.size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self._never = frozenset(self.added.values())

    def encode(self, text: str) -> list[int]:
        """Ids of a text; special tokens in it are plain text. Raises OcrError if the library
        nevertheless makes a special token of it."""
        with _explain_panic():
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not self._never.isdisjoint(ids):
            raise OcrError("this tokenizer encodes plain text as a special token; use another one")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; invalid UTF-8 becomes U+FFFD."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def cause(self, text: str) -> str:
        """The part that changes a text: the normalizer, if it does, else one of the others."""
        normalizer = self._tokenizer.normalizer
        if normalizer is not None and normalizer.normalize_str(text) != text:
            return f"its normalizer ({', '.join(_types(self.definition['normalizer']))})"
        steps = _types(self.definition.get("pre_tokenizer"))
        spaced = " with add_prefix_space" if self._adds_a_space() else ""
        affixes = [
            name
            for name in ("continuing_subword_prefix", "end_of_word_suffix")
            if self.definition["model"].get(name)
        ]
        return (
            f"its pre_tokenizer ({', '.join(steps)}{spaced}), its decoder "
            f"({', '.join(_types(self.definition.get('decoder')))})"
            + "".join(f", its {name}" for name in affixes)
            + " or an added token"
        )

    def _adds_a_space(self) -> bool:
        return '"add_prefix_space": true' in json.dumps(self.definition.get("pre_tokenizer"))

    def body(self) -> dict[str, Any]:
        """The definition without truncation, padding and post-processing."""
        return {"definition": self.definition}


def _types(step: Mapping[str, Any] | None) -> list[str]:
    """The types of the parts of a step."""
    if step is None:
        return ["none"]
    parts = step.get("normalizers") or step.get("pretokenizers") or step.get("decoders")
    return [name for part in parts for name in _types(part)] if parts else [str(step.get("type"))]


def train_ranks(texts: Iterable[str], size: int, pattern: str = NANOCHAT_PATTERN) -> Ranks:
    """Trains a byte-level BPE of at most `size` tokens within the pieces of a split pattern, by
    `tokenizers`.

    The same texts give the same ranks for any number of threads. Each learned token merges two
    earlier ones, so its id is its rank.
    """
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated"),
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
    letters = byte_letters()
    ranks = {
        bytes(letters[letter] for letter in token): rank for token, rank in bpe.get_vocab().items()
    }
    return Ranks(ranks, pattern)


def _refuse_missing(lacks: str, missing: Sequence[int]) -> None:
    """Raises UsageError if bytes are missing: a text that has one would lose letters."""
    if missing:
        lost = ", ".join(lost_letters(missing)[:8])
        raise UsageError(
            f"{lacks} {len(missing)} of the 256 single bytes"
            + (f"; texts would lose letters, such as {lost}" if lost else "")
            + "; train one with tools/train_tokenizer.py, or with the whole alphabet "
            "(initial_alphabet=ByteLevel.alphabet())"
        )


def byte_letters() -> dict[str, int]:
    """Maps the character by which `tokenizers` (as GPT-2) represents a byte to that byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + number): byte for number, byte in enumerate(others)}
