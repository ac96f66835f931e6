"""Train a tokenizer on the texts of shards.

    python tools/train_tokenizer.py --shards shards/charts.json shards/sums.json \\
        --vocab-size 2048 --out tokenizer.json

A byte-level BPE with nanochat's split pattern, trained on all texts of the conversations, questions
and answers. The same texts give the same file. To train a model with it, pass
--tokenizer tokenizer.json.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ocrdata.errors import OcrError, UsageError
from ocrdata.reading.view import Shards, open_shards
from ocrdata.runtime.cli import Parser, run
from ocrdata.runtime.progress import progress_bar
from ocrdata.runtime.units import human_bytes, human_time
from ocrdata.storage.files import make_folder
from ocrdata.storage.location import Location
from ocrdata.storage.locks import Lock
from ocrdata.tokens.tokenizer import load_tokenizer, train_tokenizer


def main(arguments: Sequence[str]) -> int:
    """Train, save, print a summary; returns the exit status."""
    flags = build_parser().parse_args(arguments)
    if flags.limit is not None and flags.limit < 1:
        raise UsageError(f"--limit {flags.limit}: at least one sample is needed")
    flags.out = Location.of(flags.out).path
    if flags.out.suffix != ".json":
        raise UsageError(f"--out {flags.out}: the file is JSON; its name must end in .json")
    sets = [open_shards(spec)[: flags.limit] for spec in flags.shards]
    for typed, shards in zip(flags.shards, sets, strict=True):
        if not len(shards):
            raise UsageError(f"--shards {typed} holds no samples")
    _check_replaceable(flags.out)
    started, texts = time.perf_counter(), _Texts(sets)
    tokenizer = train_tokenizer(iter(texts), flags.vocab_size, single=flags.single)
    make_folder(flags.out.parent)
    with Lock(flags.out.with_name(f".{flags.out.name}.lock"), str(flags.out)):
        _check_replaceable(flags.out)  # it may have been written in the meantime
        tokenizer.save(flags.out)
    print(
        f"{flags.out}: {tokenizer.vocab_size:,} ids, fingerprint {tokenizer.fingerprint}, from "
        f"{human_bytes(texts.bytes)} of text in {texts.samples:,} samples, "
        f"{human_time(time.perf_counter() - started)}"
    )
    if tokenizer.vocab_size < flags.vocab_size:
        print(f"too little text for {flags.vocab_size:,} ids: no pairs are left to merge")
    return 0


def _check_replaceable(path: Path) -> None:
    """Raises UsageError if the file exists and is not a tokenizer."""
    if path.exists():
        try:
            load_tokenizer(path)
        except OcrError as exc:
            raise UsageError(
                f"--out {path} exists but is not a tokenizer; choose another file"
            ) from exc


def build_parser() -> Parser:
    """Build the command-line parser."""
    parser = Parser(prog="train_tokenizer.py", description=__doc__ or "")
    parser.add_argument(
        "--shards", nargs="+", required=True, metavar="SPEC", help="shards to train on"
    )
    parser.add_argument(
        "--vocab-size",
        type=int,
        default=8192,
        metavar="N",
        help="vocabulary size, including 256 single bytes and 10 special tokens (default: 8192)",
    )
    parser.add_argument(
        "--single",
        default="",
        metavar="CHARACTERS",
        help="letters and digits that are never joined with others, as in A-Z0-9: one token each, "
        "so that a model can spell words it has never seen",
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="output file, .json")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only the first N samples of each SPEC"
    )
    return parser


class _Texts:
    """All texts of all sets; counts samples and bytes as they are read."""

    def __init__(self, sets: Sequence[Shards]) -> None:
        self.sets, self.samples, self.bytes = sets, 0, 0

    def __iter__(self) -> Iterator[str]:
        total = sum(len(shards) for shards in self.sets)
        with progress_bar(total, " samples") as bar:
            for shards in self.sets:
                for sample in shards:
                    for message in sample.messages:
                        for part in message["content"]:
                            if part["type"] == "text":
                                self.bytes += len(part["text"].encode())
                                yield part["text"]
                    self.samples += 1
                    bar.update()


if __name__ == "__main__":
    run(main)
