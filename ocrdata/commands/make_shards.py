"""Convert a data set to shards, streaming it: the data set itself is never stored on disk.

    python tools/make_shards.py chartqa                          # FineVision's chartqa, 18,265 rows
    python tools/make_shards.py finevision --subset docvqa       # any of its 185 subsets
    python tools/make_shards.py smoltalk --split test            # text only
    python tools/make_shards.py jsonl --path my.jsonl --images my-images
    python tools/make_shards.py parquet --path 'my-set/train-*.parquet'
    python tools/make_shards.py imagefolder --path my-scans      # metadata.jsonl or .txt captions
    python tools/make_shards.py webdataset --path 'laion/{00000..00017}.tar'
    python tools/make_shards.py chartqa-folder --path 'ChartQA Dataset' --split val
    python tools/make_shards.py docvqa --path val_v1.0.json      # benchmarks: docs/evaluation.md
    python tools/make_shards.py charts --limit 2000              # synthetic, needs nothing
    python tools/make_shards.py sums --limit 2000                # the same, text only
    python tools/make_shards.py open-charts --words held-out     # charts that must be read
    python tools/make_shards.py tables                           # tables in words
    python tools/make_shards.py glyphs --limit 20000             # short strings to begin with
    python tools/make_shards.py lines --width 512 --lines 1..3 --height 96
    python tools/make_shards.py pages --words held-out --font held-out --limit 200

Writes shards/NAME-000.tar, ... with an index beside each, NAME.rejects.jsonl if rows were rejected,
and, last, the manifest NAME.json; with --compress zstd the shards are NAME-000.tar.zst. If it was
stopped or killed, repeat the command: it continues with the missing shards, and the result is the
same, byte for byte. If the input was mended in between, finished shards whose rows are the same are
kept; --discard makes those with changed rows again.

With --out s3://BUCKET/FOLDER, hf://datasets/ORG/NAME[@BRANCH]/FOLDER, or http(s):// to a server
that accepts PUT, each shard is made in a work folder of this machine, sent when it is complete, and
deleted here: at most one shard a worker is on the disk. The manifest is sent last. One machine at a
time may write a set.
"""

from __future__ import annotations

import argparse
import glob
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocrdata.conversion.convert import convert, convert_one
from ocrdata.conversion.hub_work import COMMIT_SHARDS
from ocrdata.conversion.open_work import open_work
from ocrdata.conversion.options import KEEP, REJECT, ConversionOptions
from ocrdata.conversion.rejects import damaged_path, rejects_path
from ocrdata.conversion.remote_work import work_folder
from ocrdata.errors import UsageError
from ocrdata.planning.counting import count_anew
from ocrdata.runtime.cli import Parser, add_json_flag, print_json, run
from ocrdata.runtime.progress import Progress, to_terminal
from ocrdata.runtime.units import human_bytes, human_time
from ocrdata.shards.manifest import Manifest, read_manifest
from ocrdata.sources.base import Source
from ocrdata.sources.conversations import MESSAGE_FIELDS
from ocrdata.sources.registry import REGISTRY, Flag, SourceKind, Values
from ocrdata.storage.file import exists
from ocrdata.storage.hub_commits import check_folder, create_repository
from ocrdata.storage.location import Location
from ocrdata.storage.stores import check_scheme
from ocrdata.tokens.counts import counts_suffix
from ocrdata.tokens.counts_list import send_counts_list, write_counts_list
from ocrdata.tokens.tokenizer import Tokenizer, load_tokenizer

PROGRAM = "tools/make_shards.py"

_IN_COMMAND = (
    Flag("name", "name of the shards (default: derived from the data set)"),
    Flag(
        "shard_samples",
        "origin rows per shard: shard K holds rows [K*N, (K+1)*N) (default: 1024)",
        "N",
        int,
        1024,
    ),
    Flag("start", "first origin row (default: 0)", "ROW", int, 0),
    Flag("stop", "origin row to stop before (default: the end)", "ROW", int),
    Flag("limit", "convert at most N rows, from --start on", "N", int),
    Flag(
        "compress",
        "write .tar.zst, for text: a fifth to a seventh of the size, still with random access",
        choices=("zstd",),
    ),
    Flag(
        "damaged_jpegs",
        "what to do with JPEGs that decode, but with areas of grey or garbage where their data are "
        "damaged: keep them and list them in NAME.damaged.jsonl, or reject their rows "
        "(default: keep)",
        kind=str,
        default=KEEP,
        choices=(KEEP, REJECT),
    ),
)
"""The flags of all kinds that change the result."""


def main(arguments: Sequence[str]) -> int:
    """Convert and print a summary; returns the exit status. Raises OcrError."""
    typed, problems = build_parser().parse_with_problems(list(arguments))
    values = vars(typed)
    if values.get("kind") not in REGISTRY:
        problems.raise_all()
    kind = REGISTRY[values["kind"]]
    with problems:
        tokenizer = tokenizer_of(values["tokenizer"])
    with problems:
        options = _options(values, kind)
    if problems:  # else the source looks for them itself, and may ask the hub
        for flag in ("path", "images"):
            with problems:
                _check_exists(f"--{flag}", values.get(flag))
    problems.raise_all()
    if values["create_repo"] and options.far:
        create_repository(options.far)
    known = open_work(options.place, options.out, options.name).recorded_provenance()
    source = kind.make(values, known or {})
    text, document = make(source, options, tokenizer, only=values["only"])
    if values["json"]:
        print_json(document)
    else:
        print(text)
    return 0


def make(
    source: Source, options: ConversionOptions, tokenizer: Tokenizer | None, *, only: int | None
) -> tuple[str, dict[str, Any]]:
    """Make a set, or the shard `only` of it, and count its tokens if there is a tokenizer; returns
    a summary, and the same as a document. Raises OcrError."""
    progress, place, name = to_terminal(), options.place, options.name
    if options.far:
        progress.note(
            f"{place / name}: made in {options.out}, at most {options.workers} shards at a time, "
            "and sent from there"
        )
    counting = CountTokens(tokenizer, options) if tokenizer else None
    if only is not None:
        made = convert_one(source, options, only, progress, on_shards=counting)
        if tokenizer and exists(place / f"{name}.json"):
            _list_counts(options, read_manifest(place / f"{name}.json"), tokenizer)
        shard = str(place / made.file)
        text = f"{shard}: {made.samples:,} samples, {human_bytes(made.bytes)}"
        return text, {"shard": shard, "samples": made.samples, "bytes": made.bytes}
    complete = exists(place / f"{name}.json")
    manifest = convert(source, options, progress, on_shards=counting)
    if tokenizer:
        _list_counts(options, manifest, tokenizer)
    text = summary(manifest, options, progress, tokenizer, complete=complete)
    return text, figures(manifest, options, progress, tokenizer)


def _list_counts(options: ConversionOptions, manifest: Manifest, tokenizer: Tokenizer) -> None:
    """Write the list of a complete set's token counts."""
    if options.far:
        send_counts_list(options.far, manifest, tokenizer.fingerprint)
    else:
        write_counts_list(options.place, manifest, tokenizer.fingerprint)


def tokenizer_of(name: str | None) -> Tokenizer | None:
    """The tokenizer to count with, if one is named. Raises UsageError naming the flag."""
    try:
        return load_tokenizer(name) if name else None
    except UsageError as exc:
        raise UsageError(f"--tokenizer {exc}") from exc


def _options(values: Values, kind: SourceKind) -> ConversionOptions:
    """The options of the conversion. Raises UsageErrors."""
    # Where a required flag is missing there may be no name to derive; that fault is told already.
    named = all(values[flag.name] is not None for flag in kind.flags if flag.required)
    name = values["name"] or (kind.default_name(values) if named else "unnamed")
    out, far = output_of(values, name)
    return ConversionOptions(
        out=out,
        far=far,
        name=name,
        shard_samples=values["shard_samples"],
        start=values["start"],
        stop=values["stop"],
        limit=values["limit"],
        workers=values["workers"],
        max_reject_fraction=values["max_reject_fraction"],
        command=command(values),
        compress=values["compress"],
        discard=values["discard"],
        commit_shards=values["commit_shards"],
        damaged_jpegs=values["damaged_jpegs"],
    )


def output_of(values: Values, name: str) -> tuple[Path, Location | None]:
    """The folder in which shards are made, and the URL where they are sent, by --out and --work.
    Raises UsageError."""
    place = Location.of(values["out"])
    if place.scheme:
        check_scheme(place)
        if place.scheme == "hf":
            check_folder(place)
        elif values["create_repo"]:
            raise UsageError(
                "--create-repo needs an --out at the hub, such as hf://datasets/ME/SET"
            )
        return work_folder(place, name, values["work"]), place
    for flag in ("work", "create_repo"):
        if values[flag]:
            raise UsageError(f"--{flag.replace('_', '-')} needs an --out at a URL")
    return place.path, None


def _check_exists(flag: str, path: object) -> None:
    """Look for a single path; what patterns and several paths name, their source finds. Raises
    UsageError."""
    if not isinstance(path, str) or "://" in path or glob.has_magic(path):
        return
    if not Path(path).exists():
        raise UsageError(f"{flag} {path}: no such file or folder")


@dataclass(frozen=True)
class CountTokens:
    """Counts the tokens of finished shards that have no counts yet."""

    tokenizer: Tokenizer
    options: ConversionOptions

    @property
    def suffix(self) -> str:
        """That of the counts beside a shard."""
        return counts_suffix(self.tokenizer.fingerprint)

    def __call__(self, shards: Sequence[Path]) -> None:
        """Count, in several processes; a shard that is to be sent is counted by its own worker."""
        shown, workers = Progress(sys.stderr), self.options.workers
        if self.options.far:
            shown, workers = Progress(), 1
        count_anew(shards, self.tokenizer, workers=workers, progress=shown)


def summary(
    manifest: Manifest,
    options: ConversionOptions,
    progress: Progress,
    tokenizer: Tokenizer | None,
    *,
    complete: bool,
) -> str:
    """A few lines: what the set contains, and how long it took to make. `complete`: it had a
    manifest before."""
    totals, place = manifest.totals, options.place / manifest.name
    first, last = manifest.shards[0].file, manifest.shards[-1].file
    lines = [
        f"{place}: {totals['samples']:,} samples of {totals['rows']:,} rows, "
        f"{totals['images']:,} images, {totals['turns']:,} turns, {human_bytes(totals['bytes'])}",
        f"  shards    {first}" + (f" to {last}" if first != last else ""),
        f"  licence   {manifest.licence}",
    ]
    if "tar_bytes" in totals:
        ratio = totals["tar_bytes"] / totals["bytes"]
        lines.append(
            f"  zstd      {ratio:.1f} times smaller than {human_bytes(totals['tar_bytes'])} as tar"
        )
    if "commit" in manifest.provenance:
        pinned = manifest.provenance
        lines.append(f"  origin    {pinned['repository']} at commit {pinned['commit']}")
    if tokenizer is not None:
        lines.append(f"  tokens    counted, tokenizer {tokenizer.fingerprint}")
    rejected = manifest.rejects["rows"]
    if rejected:
        lines.append(f"  rejected  {rejected:,} rows, see {_beside(options, rejects_path)}")
        reasons = manifest.rejects["reasons"]
        lines += [f"            {count:,} x {reason}" for reason, count in reasons.items()]
    if untrained := totals.get("untrained_turns"):
        lines.append(f"  weight 0  {untrained:,} answers are not trained on")
    head = f"{MESSAGE_FIELDS}."
    kept = {name.removeprefix(head): n for name, n in totals.items() if name.startswith(head)}
    if kept:
        lines.append(
            "  meta      fields of messages that are kept in the meta only: "
            + ", ".join(f"{name} ({count:,})" for name, count in kept.items())
        )
    damaged = totals.get("damaged_jpegs")
    if damaged:
        lines.append(
            f"  damaged   {damaged:,} JPEGs, kept, see {_beside(options, damaged_path)}; "
            f"--damaged-jpegs {REJECT} rejects their rows"
        )
    if progress.shards:
        shards = "1 shard" if progress.shards == 1 else f"{progress.shards:,} shards"
        lines.append(f"  made      {shards} in {human_time(progress.seconds)}, {progress.rates}")
    elif complete:
        lines.append("  already complete; nothing was changed")
    else:
        lines.append("  no shards were missing; wrote the manifest")
    return "\n".join(lines)


def figures(
    manifest: Manifest,
    options: ConversionOptions,
    progress: Progress,
    tokenizer: Tokenizer | None,
) -> dict[str, Any]:
    """What the summary says, as a document. `made` counts what this call did: nothing, if the set
    was complete."""
    return {
        "name": manifest.name,
        "manifest": str(options.place / f"{manifest.name}.json"),
        "shards": [str(options.place / shard.file) for shard in manifest.shards],
        **manifest.totals,
        "licence": manifest.licence,
        "provenance": manifest.provenance,
        "rejects": {
            **manifest.rejects,
            "file": _beside(options, rejects_path) if manifest.rejects["rows"] else None,
        },
        "damaged": _beside(options, damaged_path) if manifest.totals.get("damaged_jpegs") else None,
        "tokenizer": tokenizer.fingerprint if tokenizer else None,
        "made": {
            "shards": progress.shards,
            "rows": progress.rows,
            "bytes": progress.bytes,
            "seconds": progress.seconds if progress.shards else 0.0,
        },
    }


def _beside(options: ConversionOptions, path: Callable[[Path, str], Path]) -> str:
    """Where a file of the set is when it is complete."""
    return str(options.place / path(options.out, options.name).name)


def command(values: Values) -> str:
    """The command that recreates the set, for the manifest. It has no folders of this machine and
    no flags that do not change the result."""
    words = ["python", PROGRAM, values["kind"]]
    for flag in (*_IN_COMMAND, *REGISTRY[values["kind"]].flags):
        value = values[flag.name]
        if value in (None, flag.default):
            continue
        found = value if flag.several else [value]
        if flag.name in ("path", "images", "font"):
            found = [Path(one).absolute().name for one in found]
        words += [_dashed(flag.name), *map(str, found)]
    return shlex.join(words)


def _dashed(name: str) -> str:
    return "--" + name.replace("_", "-")


def build_parser() -> Parser:
    """Build the command-line parser."""
    parser = Parser(prog=PROGRAM, description=__doc__ or "")
    kinds = parser.add_subparsers(
        dest="kind",
        required=True,
        metavar="KIND",
        title="kinds of data set (each has its own --help)",
    )
    for name, kind in REGISTRY.items():
        one = kinds.add_parser(name, help=kind.text, description=f"Make shards of {kind.text}.")
        _add_flags(one, kind)
    return parser


def add_output_flags(parser: argparse.ArgumentParser, *, default: str | None) -> None:
    """Add --out and --work; without a default --out is required."""
    parser.add_argument(
        "--out",
        default=default,
        required=default is None,
        metavar="PLACE",
        help="output folder, or a URL such as s3://BUCKET/FOLDER"
        + (f" (default: {default})" if default else ""),
    )
    parser.add_argument(
        "--work",
        metavar="DIR",
        help="with --out at a URL: where shards are made before they are sent, and where it is "
        "recorded what was sent (default: the cache folder)",
    )
    parser.add_argument(
        "--create-repo",
        action="store_true",
        help="with --out hf://: create the repository, private, if there is none",
    )
    parser.add_argument(
        "--commit-shards",
        type=int,
        default=COMMIT_SHARDS,
        metavar="N",
        help=f"with --out hf://: shards in a commit (default: {COMMIT_SHARDS})",
    )


def _add_flags(parser: argparse.ArgumentParser, kind: SourceKind) -> None:
    """Add the flags of one kind, then those of all kinds."""
    add, workers = parser.add_argument, min(4, os.cpu_count() or 1)
    for flag in kind.flags:
        _add(parser, flag)
    add_output_flags(parser, default="shards")
    for flag in _IN_COMMAND:
        _add(parser, flag)
    add(
        "--workers",
        type=int,
        default=workers,
        metavar="N",
        help=f"worker processes; any number gives the same result (default here: {workers})",
    )
    add(
        "--only",
        type=int,
        metavar="K",
        help="make only shard K, as part of an unfinished set or to repair a damaged shard",
    )
    add(
        "--tokenizer",
        metavar="FILE",
        help="count the tokens of every sample with this tokenizer, in a file beside each shard, "
        "so that no plan has to (nanochat's folder or tokenizer.pkl, tokenizer.json, a .tiktoken "
        "file, or the word bytes: 256 bytes and the special tokens)",
    )
    add(
        "--max-reject-fraction",
        type=float,
        default=0.01,
        metavar="F",
        help="fail if a larger fraction of the rows is rejected (default: 0.01)",
    )
    add(
        "--discard",
        action="store_true",
        help="remove the shards that an earlier, unfinished conversion of this name left, where "
        "they do not fit this command; those that do are kept",
    )
    add_json_flag(parser)


def _add(parser: argparse.ArgumentParser, flag: Flag) -> None:
    parser.add_argument(
        _dashed(flag.name),
        help=flag.help,
        metavar=None if flag.choices else flag.metavar,
        type=flag.kind,
        default=flag.default,
        required=flag.required,
        choices=flag.choices or None,
        nargs="+" if flag.several else None,
    )


if __name__ == "__main__":
    run(main)
