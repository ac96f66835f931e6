"""The tokenizer: text to ids and back, with the special tokens of a conversation beside it.

Owner of the special tokens (nanochat's nine and `<|image|>`, the last id) and of tokenizer files:
our own, nanochat's pickle, `tokenizers` and rank files. Special tokens are ids that only rendering
(`ocrdata.tokens.rendering`) places: `encode` never yields one, whatever the text spells. It never
downloads, never trains unasked, and never guesses silently: what a file does not say is decided by
a written rule.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import xxhash

from ocrdata.errors import OcrError, ShardError, UsageError
from ocrdata.storage.file import is_folder, list_names, read_all
from ocrdata.storage.files import write_json
from ocrdata.storage.location import Location, LocationLike
from ocrdata.storage.sealed import canonical_ascii, version_problem
from ocrdata.tokens.nanochat_pickle import read_pickled_encoding
from ocrdata.tokens.vocabulary import (
    GPT2_PATTERN,
    LARGEST_VOCABULARY,
    NANOCHAT_PATTERN,
    Backend,
    Definition,
    Ranks,
    train_ranks,
)

IMAGE_TOKEN = "<|image|>"

SPECIAL_TOKENS = (
    "<|bos|>",
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
    IMAGE_TOKEN,
)
"""nanochat's nine (its tokenizer.py, 2025-12), then ours."""

LONGEST_SPACE = 100_000
"""Whitespace runs are encoded in pieces of this many characters. tiktoken's pattern engine dies of
a stack overflow (a panic, not an exception) on runs of half a million."""

FORMAT = "ocr-tokenizer"
VERSION = 1


class Tokenizer:
    """Ids of text and of the specials. Equal fingerprints give equal ids for every text.

    `vocab_size` counts all ids up to the largest; `<|image|>` is the last one unless the file it
    came from had placed it already. Safe to use from many threads, and to pickle for spawn.
    """

    def __init__(self, backend: Backend, specials: Mapping[str, int] | None = None) -> None:
        self.backend = backend
        self.specials = _complete(dict(specials or {}), backend.size)
        # What `encode` promises rests on this; a `Definition` looks after its own.
        if isinstance(backend, Ranks) and not backend.ids.isdisjoint(self.specials.values()):
            raise UsageError("a special token has the id of a token of text")
        self.vocab_size = max(backend.size - 1, *self.specials.values()) + 1
        if self.vocab_size > LARGEST_VOCABULARY:
            raise UsageError(
                f"its largest id is {self.vocab_size - 1:,}, above {LARGEST_VOCABULARY:,}"
            )
        self.bos = self.specials["<|bos|>"]
        self.user_start = self.specials["<|user_start|>"]
        self.user_end = self.specials["<|user_end|>"]
        self.assistant_start = self.specials["<|assistant_start|>"]
        self.assistant_end = self.specials["<|assistant_end|>"]
        self.image = self.specials[IMAGE_TOKEN]
        self._names = {value: name for name, value in self.specials.items()}
        self.fingerprint = _digest(self.to_json())

    def encode(self, text: str) -> list[int]:
        """Ids of a text; never a special id, even where the text spells a special token.

        Lone surrogates, which are no text, become U+FFFD.
        """
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if len(text) <= LONGEST_SPACE:
            return self.backend.encode(text)
        return [id_ for piece in _pieces(text) for id_ in self.backend.encode(piece)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, specials spelled out. Raises ValueError for an id that is none."""
        text: list[str] = []
        plain: list[int] = []
        for id_ in [int(id_) for id_ in ids]:
            if id_ in self._names:
                text += [self._decode_plain(plain), self._names[id_]]
                plain = []
            else:
                plain.append(id_)
        return "".join([*text, self._decode_plain(plain)])

    def _decode_plain(self, ids: Sequence[int]) -> str:
        if not ids:
            return ""
        if min(ids) < 0 or max(ids) >= self.vocab_size:
            raise ValueError(f"ids from {min(ids)} to {max(ids)} of a {self.vocab_size} vocabulary")
        try:
            return self.backend.decode(ids)
        except KeyError as exc:
            raise ValueError(f"an id that no token has: {exc}") from exc

    def to_json(self) -> dict[str, Any]:
        """All that the tokenizer is, as JSON values."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "kind": self.backend.kind,
            "specials": self.specials,
            **self.backend.body(),
        }

    def save(self, path: LocationLike) -> None:
        """Write it as plain JSON with its digest; `load_tokenizer` reads it. Atomic."""
        write_json(Location.of(path).path, {**self.to_json(), "digest": self.fingerprint})


def _complete(specials: dict[str, int], size: int) -> dict[str, int]:
    """All ten specials with ids: those given keep theirs, the others follow the last id."""
    if not all(type(id_) is int for id_ in specials.values()):
        raise UsageError("the id of a special token is no integer")
    following = max([size - 1, *specials.values()]) + 1
    for name in SPECIAL_TOKENS:
        if name not in specials:
            specials[name] = following
            following += 1
    if len(set(specials.values())) != len(specials) or min(specials.values()) < 0:
        raise UsageError("two special tokens have the same id, or an id is negative")
    return dict(sorted(specials.items(), key=lambda item: item[1]))


def _digest(value: Mapping[str, Any]) -> str:
    """16 hex digits over the canonical JSON: part of file names, so short."""
    return xxhash.xxh3_64_hexdigest(canonical_ascii(value))


def _from_saved(value: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that `Tokenizer.to_json` described. Raises UsageError where it is none."""
    problem = version_problem(value.get("version", 0), VERSION)
    if problem:
        raise UsageError(problem)
    backend: Backend
    try:
        if value["kind"] == Ranks.kind:
            ranks = {base64.b64decode(token): int(r) for token, r in value["ranks"].items()}
            backend = Ranks(ranks, value["pattern"])
        else:
            backend = Definition(value["definition"])
        tokenizer = Tokenizer(backend, value["specials"])
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        if isinstance(exc, UsageError):
            raise
        raise UsageError(f"a saved tokenizer with a part that is wrong or missing: {exc}") from exc
    if value.get("digest") != tokenizer.fingerprint:
        raise OcrError(
            f"its digest is {value.get('digest')}, the content has {tokenizer.fingerprint}: the "
            "file changed after it was written; make it again with tools/train_tokenizer.py"
        )
    return tokenizer


def _pieces(text: str) -> Iterator[str]:
    """A long text cut inside its overlong whitespace runs."""
    start = 0
    for run in re.finditer(rf"\s{{{LONGEST_SPACE}}}", text):
        yield text[start : run.end()]
        start = run.end()
    yield text[start:]


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE with nanochat's split pattern, trained by `tokenizers`.

    `vocab_size` includes the 256 bytes and the ten specials; texts too poor for it give a smaller
    one. The same texts give the same tokenizer. Raises UsageError for less than 266.
    """
    smallest = 256 + len(SPECIAL_TOKENS)
    if vocab_size < smallest:
        raise UsageError(f"vocab_size is {vocab_size}, the bytes and specials alone are {smallest}")
    if vocab_size > LARGEST_VOCABULARY:
        raise UsageError(f"vocab_size is {vocab_size}, at most {LARGEST_VOCABULARY:,} are trained")
    return Tokenizer(train_ranks(texts, vocab_size - len(SPECIAL_TOKENS)))


FILE_NAMES = ("tokenizer.pkl", "tokenizer.json")
"""Looked for in a folder, in this order (the original before a conversion of it), then *.tiktoken.
"""


def load_tokenizer(path: LocationLike) -> Tokenizer:
    """The tokenizer in a file, or in a folder that holds one.

    Read are nanochat's `tokenizer.pkl`, `tokenizer.json` of `tokenizers`, rank files (`.tiktoken`)
    and what `Tokenizer.save` wrote. Missing special tokens get the ids after the last one. Raises
    UsageError where there is none, OcrError for a saved one that was changed.
    """
    file = _find(Location.of(path))
    try:
        data = read_all(file)
    except OSError as exc:
        raise UsageError(f"{file}: {exc.strerror}") from exc
    except ShardError as exc:  # a pipe, a folder
        raise UsageError(str(exc)) from exc
    try:
        if file.name.endswith(".pkl"):
            return Tokenizer(*read_pickled_encoding(data))
        if file.name.endswith(".tiktoken"):
            return _from_ranks(data)
        return _from_json(data)
    except UsageError as exc:
        raise UsageError(f"{file}: {exc}") from exc
    except OcrError as exc:
        raise OcrError(f"{file}: {exc}") from exc


def _find(path: Location) -> Location:
    if not is_folder(path):
        return path
    names = list_names(path)
    for name in (*FILE_NAMES, *(name for name in names if name.endswith(".tiktoken"))):
        if name in names and not is_folder(path / name):
            return path / name
    raise UsageError(
        f"{path}: no tokenizer in this folder (looked for {', '.join(FILE_NAMES)}, *.tiktoken); "
        "train one with python tools/train_tokenizer.py --shards SPEC --vocab-size N --out FILE"
    )


def _from_json(data: bytes) -> Tokenizer:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"neither JSON nor another kind of tokenizer file: {exc}") from exc
    if isinstance(value, dict) and value.get("format") == FORMAT:
        return _from_saved(value)
    if isinstance(value, dict) and "model" in value:
        added = value.get("added_tokens") or []
        if not (isinstance(added, list) and all(isinstance(token, dict) for token in added)):
            raise UsageError("its added_tokens are no list of tokens")
        for token in added:
            # A special that is not marked as one would be found in plain text.
            if token.get("content") in SPECIAL_TOKENS:
                token["special"] = True
        backend = Definition(value)
        return Tokenizer(backend, {n: i for n, i in backend.added.items() if n in SPECIAL_TOKENS})
    raise UsageError("JSON, but neither a tokenizer saved here nor one of `tokenizers`")


def _from_ranks(data: bytes) -> Tokenizer:
    """A rank file: a line for each token, base64 and rank. It does not name its split pattern.

    Rule: ranks that hold a run of three digits or more were not learned under nanochat's pattern,
    which allows two; they get GPT-2's. All others get nanochat's.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as exc:
            raise UsageError(f"line {number} is not `base64 rank`: {line[:40]!r}") from exc
    long_digits = any(re.search(rb"[0-9]{3}", token) for token in ranks)
    return Tokenizer(Ranks(ranks, GPT2_PATTERN if long_digits else NANOCHAT_PATTERN))
