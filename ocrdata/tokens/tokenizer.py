"""Tokenizers: text to ids and back, and the special tokens of a conversation.

Defines the special tokens (nanochat's nine and `<|image|>`, the last id), trains tokenizers, and
reads tokenizer files: our own JSON, nanochat's pickle, `tokenizers` JSON and rank files; `bytes` is
built in. Only rendering (`ocrdata.tokens.rendering`) places special tokens: `encode` never returns
one, whatever the text contains, and never loses or changes a letter. Nothing is downloaded or
trained implicitly; what a file leaves open is decided by a documented rule.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import xxhash

from ocrdata.errors import OcrError, RejectedRow, ShardError, UsageError
from ocrdata.storage.file import is_folder, list_names, read_all
from ocrdata.storage.files import write_json
from ocrdata.storage.location import Location, LocationLike
from ocrdata.storage.sealed import canonical_ascii, version_problem
from ocrdata.tokens.nanochat_pickle import read_pickled_encoding
from ocrdata.tokens.round_trip import changed_texts, examples, first_change
from ocrdata.tokens.vocabulary import (
    GPT2_PATTERN,
    LARGEST_VOCABULARY,
    NANOCHAT_PATTERN,
    Backend,
    Definition,
    Ranks,
    split_pattern,
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
"""nanochat's nine (its tokenizer.py, 2025-12), then our own."""

LONGEST_SPACE = 100_000
"""Longer whitespace is encoded in pieces of this many characters. tiktoken's pattern engine has a
stack overflow (a panic, not an exception) at half a million."""

OWN_FILE = "ocr-tokenizer.json"
"""What `Tokenizer.save` writes into the folder of an exported model, whose tokenizer.json is for
`tokenizers`."""

FILE_NAMES = ("tokenizer.pkl", OWN_FILE, "tokenizer.json")
"""Searched for in a folder in this order (the original before a conversion of it), then *.tiktoken.
"""

BYTES = "bytes"
"""The name of the built-in tokenizer in place of a file's; a file of that name is `./bytes`."""

FORMAT = "ocr-tokenizer"
VERSION = 1


class Tokenizer:
    """A vocabulary with special tokens. Equal fingerprints give equal ids for every text.

    `vocab_size` is the largest id plus one; `<|image|>` has the largest id unless the file gives it
    another. Safe to share between threads, and can be pickled for spawned processes.
    """

    def __init__(self, backend: Backend, specials: Mapping[str, int] | None = None) -> None:
        self.backend = backend
        self.specials = _complete(dict(specials or {}), backend.size)
        # Otherwise `encode` could return a special id. `Definition` checks this when it encodes.
        if isinstance(backend, Ranks) and not backend.ids.isdisjoint(self.specials.values()):
            raise UsageError("a special token has the id of a text token")
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
        """Ids of a text; never a special id, even if the text contains the name of a special token.

        Raises RejectedRow for a text that this tokenizer does not give back as it was, and for one
        with a lone surrogate, which is no letter: UTF-8 cannot encode it.
        """
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise RejectedRow("lone surrogate in a text") from exc
        if len(text) <= LONGEST_SPACE:
            return self._encode_piece(text)
        return [id_ for piece in _pieces(text) for id_ in self._encode_piece(piece)]

    def _encode_piece(self, text: str) -> list[int]:
        ids = self.backend.encode(text)
        if not self.backend.complete and (got := self.backend.decode(ids)) != text:
            raise RejectedRow(f"the tokenizer changes a text: {first_change(text, got)}")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, with the names of special tokens. Raises ValueError for an invalid
        id."""
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
            raise ValueError(
                f"ids must be from 0 to {self.vocab_size - 1}; these range from {min(ids)} to "
                f"{max(ids)}"
            )
        try:
            return self.backend.decode(ids)
        except KeyError as exc:
            raise ValueError(f"an id without a token: {exc}") from exc

    def to_json(self) -> dict[str, Any]:
        """The complete tokenizer as a JSON object."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "kind": self.backend.kind,
            "specials": self.specials,
            **self.backend.body(),
        }

    def save(self, path: LocationLike) -> None:
        """Write it atomically, as plain JSON with its digest; `load_tokenizer` reads it."""
        write_json(Location.of(path).path, {**self.to_json(), "digest": self.fingerprint})


def _complete(specials: dict[str, int], size: int) -> dict[str, int]:
    """The ids of all ten special tokens: those given are kept, the others follow the largest id."""
    if not all(type(id_) is int for id_ in specials.values()):
        raise UsageError("the id of a special token is not an integer")
    following = max([size - 1, *specials.values()]) + 1
    for name in SPECIAL_TOKENS:
        if name not in specials:
            specials[name] = following
            following += 1
    if len(set(specials.values())) != len(specials) or min(specials.values()) < 0:
        raise UsageError("two special tokens have the same id, or an id is negative")
    return dict(sorted(specials.items(), key=lambda item: item[1]))


def _digest(value: Mapping[str, Any]) -> str:
    """The digest of the canonical JSON: 16 hex digits, short enough for file names."""
    return xxhash.xxh3_64_hexdigest(canonical_ascii(value))


def _from_saved(value: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that `Tokenizer.save` wrote. Raises UsageError if it is malformed, OcrError if
    it was modified."""
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
        raise UsageError(f"a part of this saved tokenizer is missing or invalid: {exc}") from exc
    if value.get("digest") != tokenizer.fingerprint:
        raise OcrError(
            f"checksum mismatch: the stored digest is {value.get('digest')}, that of the content "
            f"{tokenizer.fingerprint}; the file was modified after it was written, recreate it "
            "with tools/train_tokenizer.py"
        )
    return tokenizer


def _pieces(text: str) -> Iterator[str]:
    """Split a text so that no piece has more than LONGEST_SPACE whitespace characters in a row."""
    start = 0
    for spaces in re.finditer(rf"\s{{{LONGEST_SPACE}}}", text):
        yield text[start : spaces.end()]
        start = spaces.end()
    yield text[start:]


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, single: str = "") -> Tokenizer:
    """Train a byte-level BPE with nanochat's split pattern, by `tokenizers`; the characters of
    `single` stand alone (`split_pattern`).

    `vocab_size` includes the 256 single bytes and the ten special tokens; texts with too little
    variety give a smaller vocabulary. The same texts give the same tokenizer. Raises UsageError if
    `vocab_size` is below 266 or above LARGEST_VOCABULARY, or `single` has another form.
    """
    smallest = 256 + len(SPECIAL_TOKENS)
    if vocab_size < smallest:
        raise UsageError(
            f"vocab_size is {vocab_size}, but bytes and special tokens alone are {smallest}"
        )
    if vocab_size > LARGEST_VOCABULARY:
        raise UsageError(
            f"vocab_size is {vocab_size}, but at most {LARGEST_VOCABULARY:,} is allowed"
        )
    ranks = train_ranks(texts, vocab_size - len(SPECIAL_TOKENS), split_pattern(single))
    return Tokenizer(ranks)


def bytes_tokenizer() -> Tokenizer:
    """The built-in tokenizer: an id for each byte, then the special tokens. For models that start
    from random weights; it needs no file and no training, and texts are some four times as long as
    with a trained vocabulary."""
    return Tokenizer(Ranks({bytes([value]): value for value in range(256)}, NANOCHAT_PATTERN))


def load_tokenizer(path: LocationLike) -> Tokenizer:
    """Load the tokenizer in a file, or in a folder that contains one, or the built-in `bytes`.

    Reads nanochat's `tokenizer.pkl`, a `tokenizer.json` of `tokenizers`, rank files (`.tiktoken`)
    and what `Tokenizer.save` wrote. Missing special tokens get the ids after the largest one.
    Raises UsageError if there is no valid tokenizer or it changes ordinary texts, OcrError if a
    saved one was modified.
    """
    if path == BYTES:
        return bytes_tokenizer()
    file = _tokenizer_file(Location.of(path))
    try:
        data = read_all(file)
    except OSError as exc:
        raise UsageError(f"{file}: {exc.strerror}") from exc
    except ShardError as exc:  # not a regular file
        raise UsageError(str(exc)) from exc
    try:
        if file.name.endswith(".pkl"):
            tokenizer = Tokenizer(*read_pickled_encoding(data))
        elif file.name.endswith(".tiktoken"):
            tokenizer = _from_ranks(data)
        else:
            tokenizer = _from_json(data)
        _refuse_changes(tokenizer.backend)
        return tokenizer
    except UsageError as exc:
        raise UsageError(f"{file}: {exc}") from exc
    except OcrError as exc:
        raise OcrError(f"{file}: {exc}") from exc


def _tokenizer_file(location: Location) -> Location:
    if not is_folder(location):
        return location
    names = list_names(location)
    for name in (*FILE_NAMES, *(name for name in names if name.endswith(".tiktoken"))):
        if name in names and not is_folder(location / name):
            return location / name
    raise UsageError(
        f"{location}: no tokenizer in this folder (looked for {', '.join(FILE_NAMES)} and "
        "*.tiktoken); train one with python tools/train_tokenizer.py --shards SPEC --vocab-size N "
        "--out FILE"
    )


def _refuse_changes(backend: Backend) -> None:
    """Raises UsageError if ordinary texts are not given back as they were."""
    if changed := changed_texts(backend):
        raise UsageError(
            f"does not give texts back as they were: {examples(changed)}; the cause is "
            f"{backend.cause(changed[0][0])}: correct it there, or train one with "
            "tools/train_tokenizer.py"
        )


def _from_json(data: bytes) -> Tokenizer:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"not readable as JSON, and not .pkl or .tiktoken: {exc}") from exc
    if isinstance(value, dict) and value.get("format") == FORMAT:
        return _from_saved(value)
    if isinstance(value, dict) and "model" in value:
        added = value.get("added_tokens") or []
        if not (isinstance(added, list) and all(isinstance(token, dict) for token in added)):
            raise UsageError("its added_tokens are not a list of tokens")
        for token in added:
            # A special token that is not marked as one would be recognised in plain text.
            if token.get("content") in SPECIAL_TOKENS:
                token["special"] = True
        backend = Definition(value)
        return Tokenizer(backend, {n: i for n, i in backend.added.items() if n in SPECIAL_TOKENS})
    raise UsageError("is JSON, but neither our own tokenizer format nor that of `tokenizers`")


def _from_ranks(data: bytes) -> Tokenizer:
    """The tokenizer of a rank file: a line per token, base64 and rank, without a split pattern.

    Rule: ranks with a token of three or more adjacent digits get GPT-2's pattern, since nanochat's
    allows two; all others get nanochat's.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as exc:
            raise UsageError(
                f"line {number} is malformed, expected `base64 rank`: {line[:40]!r}"
            ) from exc
    long_digits = any(re.search(rb"[0-9]{3}", token) for token in ranks)
    return Tokenizer(Ranks(ranks, GPT2_PATTERN if long_digits else NANOCHAT_PATTERN))
