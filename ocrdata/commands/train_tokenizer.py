"""Train a tokenizer of one's own on the texts of shards.

    python tools/train_tokenizer.py --shards shards/charts.json shards/sums.json \\
        --vocab-size 2048 --out tokenizer.json

A byte-level BPE with nanochat's split pattern. All texts of the conversations count, questions and
answers alike. The same texts give the same file. A run takes it with --tokenizer tokenizer.json.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from ocrdata.errors import OcrError, UsageError
from ocrdata.reading.view import Shards, open_shards
from ocrdata.runtime.cli import Parser, run
from ocrdata.runtime.units import human_bytes, human_time
from ocrdata.storage.files import make_folder
from ocrdata.storage.locks import Lock
from ocrdata.tokens.tokenizer import load_tokenizer, train_tokenizer


def main(arguments: Sequence[str]) -> int:
    """Train, save, and say what came out."""
    asked = build_parser().parse_args(arguments)
    if asked.limit is not None and asked.limit < 1:
        raise UsageError(f"--limit {asked.limit}: at least one sample is needed")
    if asked.out.suffix != ".json":
        raise UsageError(f"--out {asked.out}: the file is JSON, name it so, such as tokenizer.json")
    sets = [open_shards(spec)[: asked.limit] for spec in asked.shards]
    for typed, shards in zip(asked.shards, sets, strict=True):
        if not len(shards):
            raise UsageError(f"--shards {typed} holds no samples")
    _refuse_other(asked.out)
    started, texts = time.perf_counter(), _Texts(sets)
    tokenizer = train_tokenizer(iter(texts), asked.vocab_size)
    make_folder(asked.out.parent)
    with Lock(asked.out.with_name(f".{asked.out.name}.lock"), str(asked.out)):
        _refuse_other(asked.out)  # one may have been written since
        tokenizer.save(asked.out)
    print(
        f"{asked.out}: {tokenizer.vocab_size:,} ids, fingerprint {tokenizer.fingerprint}, from "
        f"{human_bytes(texts.bytes)} of text in {texts.samples:,} samples, "
        f"{human_time(time.perf_counter() - started)}"
    )
    if tokenizer.vocab_size < asked.vocab_size:
        print(f"the texts are too few for {asked.vocab_size:,}: nothing is left to merge")
    return 0


def _refuse_other(path: Path) -> None:
    """Whether a file is there that is no tokenizer. Raises UsageError."""
    if path.exists():
        try:
            load_tokenizer(path)
        except OcrError as exc:
            raise UsageError(f"--out {path} is there and is no tokenizer; name another") from exc


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(prog="train_tokenizer.py", description=__doc__ or "")
    parser.add_argument("--shards", nargs="+", required=True, metavar="SPEC", help="texts to learn")
    parser.add_argument(
        "--vocab-size", type=int, default=8192, metavar="N", help="256 bytes and 10 specials too"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="FILE.json")
    parser.add_argument("--limit", type=int, metavar="N", help="first N samples of each SPEC only")
    return parser


class _Texts:
    """All texts of all sets, counted while they are read."""

    def __init__(self, sets: Sequence[Shards]) -> None:
        self.sets, self.samples, self.bytes = sets, 0, 0

    def __iter__(self) -> Iterator[str]:
        total = sum(len(shards) for shards in self.sets)
        with tqdm(total=total, unit=" samples", leave=False, disable=None, file=sys.stderr) as bar:
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
