"""Make shards of a data set, without ever holding the data set on the disk.

    python tools/make_shards.py chartqa                          # FineVision's chartqa, 18,265 rows
    python tools/make_shards.py finevision --subset docvqa       # any of its 185 subsets
    python tools/make_shards.py smoltalk --split test            # text only
    python tools/make_shards.py jsonl --path my.jsonl --images my-images
    python tools/make_shards.py sums --limit 2000                # synthetic, needs nothing

What comes out is shards/NAME-000.tar, ... with an index beside each, NAME.rejects.jsonl where rows
were rejected, and, last of all, the manifest NAME.json; with --compress zstd the shards are
NAME-000.tar.zst. Stopped or killed, the same command goes on
where it was, and the result is the same to the byte.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ocrdata.conversion.convert import convert, convert_one
from ocrdata.conversion.options import Options
from ocrdata.conversion.rejects import rejects_path
from ocrdata.conversion.work_folder import recorded_provenance
from ocrdata.runtime.cli import Parser, run
from ocrdata.runtime.progress import Progress, to_terminal
from ocrdata.runtime.units import human_bytes, human_time
from ocrdata.shards.manifest import Manifest
from ocrdata.sources import finevision, smoltalk
from ocrdata.sources.base import Source, safe_name
from ocrdata.sources.jsonl import JsonlSource
from ocrdata.tokens.tokenizer import load_tokenizer

PROGRAM = "tools/make_shards.py"
SYNTHETIC_ROWS = 10_240

KINDS = {
    "chartqa": "charts with questions: FineVision's subset chartqa",
    "finevision": "any subset of FineVision, or of a repository with its columns",
    "smoltalk": "conversations without images: a repository with a `messages` column",
    "jsonl": "your own file of conversations, with a folder of images",
    "charts": "synthetic charts with questions of ChartQA's kinds, seeded",
    "sums": "synthetic conversations without images, seeded",
}


@dataclass(frozen=True)
class _Asked:
    """The command line. Options that a kind has not are None."""

    kind: str
    out: str
    name: str | None
    shard_samples: int
    start: int
    stop: int | None
    limit: int | None
    workers: int
    only: int | None
    max_reject_fraction: float
    compress: str | None
    repo: str | None = None
    revision: str | None = None
    subset: str | None = None
    config: str | None = None
    split: str | None = None
    path: str | None = None
    images: str | None = None
    tokenizer: str | None = None
    seed: int | None = None


def main(arguments: Sequence[str]) -> int:
    """Parse, convert, print. Raises OcrError."""
    parsed = vars(build_parser().parse_args(arguments))
    known = {field.name for field in fields(_Asked)}
    asked = _Asked(**{name: value for name, value in parsed.items() if name in known})
    out, name = Path(asked.out), asked.name or _default_name(asked)
    options = Options(
        out=out,
        name=name,
        shard_samples=asked.shard_samples,
        start=asked.start,
        stop=asked.stop,
        limit=asked.limit,
        workers=asked.workers,
        max_reject_fraction=asked.max_reject_fraction,
        command=_command(asked),
        compress=asked.compress,
        tokenizer=load_tokenizer(asked.tokenizer) if asked.tokenizer else None,
    )
    source = _source(asked, recorded_provenance(out, name) or {})
    progress = to_terminal()
    if asked.only is not None:
        made = convert_one(source, options, asked.only, progress)
        print(f"{out / made.file}: {made.samples:,} samples, {human_bytes(made.bytes)}")
        return 0
    print(summary(convert(source, options, progress), options, progress))
    return 0


def summary(manifest: Manifest, options: Options, progress: Progress) -> str:
    """What there is now, and what it cost."""
    totals, place = manifest.totals, options.out / manifest.name
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
            f"  zstd      {ratio:.1f} times smaller than {human_bytes(totals['tar_bytes'])} of tar"
        )
    if "commit" in manifest.provenance:
        pinned = manifest.provenance
        lines.append(f"  origin    {pinned['repository']} at commit {pinned['commit']}")
    if options.tokenizer is not None:
        lines.append(f"  tokens    counted, tokenizer {options.tokenizer.fingerprint}")
    rejected = manifest.rejects["rows"]
    if rejected:
        lines.append(
            f"  rejected  {rejected:,} rows, see {rejects_path(options.out, options.name)}"
        )
        reasons = manifest.rejects["reasons"]
        lines += [f"            {count:,} x {reason}" for reason, count in reasons.items()]
    if progress.shards:
        lines.append(
            f"  made      {progress.shards} shards in {human_time(progress.seconds)}, "
            f"{progress.rates}"
        )
    else:
        lines.append("  it was complete already; nothing was done")
    return "\n".join(lines)


def _source(asked: _Asked, recorded: Mapping[str, Any]) -> Source:
    """The source that was asked for, pinned as an earlier run pinned it."""
    revision = asked.revision or "main"
    if asked.kind in ("chartqa", "finevision"):
        return finevision.finevision(
            asked.subset or "chartqa",
            repository=asked.repo or finevision.REPOSITORY,
            revision=revision,
            recorded=recorded,
        )
    if asked.kind == "smoltalk":
        return smoltalk.smoltalk(
            asked.config,
            asked.split or "train",
            repository=asked.repo or smoltalk.REPOSITORY,
            revision=revision,
            recorded=recorded,
        )
    if asked.kind == "jsonl":
        return JsonlSource(Path(asked.path or ""), Path(asked.images) if asked.images else None)
    # Synthetic rows have no end of their own: as many as were asked for.
    rows = asked.stop or asked.start + (asked.limit or SYNTHETIC_ROWS)
    if asked.kind == "charts":
        from ocrdata.sources.charts import ChartsSource

        return ChartsSource(rows, seed=asked.seed or 0)
    from ocrdata.sources.sums import SumsSource

    return SumsSource(rows, seed=asked.seed or 0)


def _default_name(asked: _Asked) -> str:
    """What the shards are called where --name does not say."""
    if asked.kind == "finevision":
        return safe_name(asked.subset or "")
    if asked.kind == "smoltalk":
        return smoltalk.default_name(asked.config, asked.split or "train")
    if asked.kind == "jsonl":
        return safe_name(Path(asked.path or "").stem)
    return asked.kind


# What another machine may do otherwise with the same result, or what the manifest holds anyway.
_NOT_IN_COMMAND = ("kind", "out", "workers", "only", "max_reject_fraction", "tokenizer")


def _command(asked: _Asked) -> str:
    """The command that makes the set again, for the manifest: no folder of this machine in it."""
    words = ["python", PROGRAM, asked.kind]
    for field in fields(_Asked):
        value = getattr(asked, field.name)
        if field.name in ("path", "images") and value is not None:
            value = Path(value).name
        if field.name not in _NOT_IN_COMMAND and value not in (None, _DEFAULTS.get(field.name)):
            words += ["--" + field.name.replace("_", "-"), str(value)]
    return shlex.join(words)


_DEFAULTS: dict[str, Any] = {"shard_samples": 1024, "start": 0, "split": "train", "seed": 0}


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(prog=PROGRAM, description=__doc__ or "")
    kinds = parser.add_subparsers(
        dest="kind", required=True, metavar="KIND", title="kinds (each has its own --help)"
    )
    for kind, text in KINDS.items():
        one = kinds.add_parser(kind, help=text, description=f"Make shards of {text}.")
        _add_own(one, kind)
        _add_common(one)
    return parser


def _add_own(parser: argparse.ArgumentParser, kind: str) -> None:
    """Options of one kind."""
    add = parser.add_argument
    if kind == "finevision":
        add(
            "--subset",
            required=True,
            help="its name on the hub; the shards are named after it, each run of characters "
            "other than letters, digits, _ and - replaced by one -",
        )
    if kind == "smoltalk":
        add("--config", help="config of the repository (`all` for HuggingFaceTB/smoltalk)")
        add("--split", default="train", help="train (default) or test")
    if kind in ("chartqa", "finevision", "smoltalk"):
        own = smoltalk.REPOSITORY if kind == "smoltalk" else finevision.REPOSITORY
        add("--repo", metavar="OWNER/NAME", help=f"another repository than {own}")
        add(
            "--revision",
            help="branch, tag or commit; the commit it stands for at the first start is written "
            "down and kept (default: main)",
        )
    if kind == "jsonl":
        add(
            "--path",
            required=True,
            metavar="FILE",
            help="JSON Lines or one JSON array; a record is {messages: [{role, content}]}, "
            "{texts: [{user, assistant}]}, {prompt, answer}, or a bare list of messages, with "
            "its images under `image` or `images`",
        )
        add(
            "--images",
            metavar="DIR",
            help="folder that image names are relative to (default: FILE's folder)",
        )
    if kind in ("charts", "sums"):
        add("--seed", type=int, default=0, help="another seed draws other samples (default: 0)")


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Options of all kinds."""
    add = parser.add_argument
    workers = min(4, os.cpu_count() or 1)
    add("--out", default="shards", metavar="DIR", help="where to (default: shards)")
    add("--name", help="name of the shards (default: after the data set)")
    add(
        "--shard-samples",
        type=int,
        default=1024,
        metavar="N",
        help="origin rows a shard: shard K holds rows [K*N, (K+1)*N) (default: 1024)",
    )
    add("--start", type=int, default=0, metavar="ROW", help="first origin row (default: 0)")
    add("--stop", type=int, metavar="ROW", help="origin row to stop before (default: the end)")
    add("--limit", type=int, metavar="N", help="at most so many rows from --start on")
    add(
        "--workers",
        type=int,
        default=workers,
        metavar="N",
        help=f"processes; they change nothing in the result (default here: {workers})",
    )
    add(
        "--only",
        type=int,
        metavar="K",
        help="make shard K alone: a part of a set to come, or the repair of a damaged one",
    )
    add(
        "--compress",
        choices=("zstd",),
        help="write .tar.zst for text: a fifth to a seventh of the size, still any sample at once",
    )
    add(
        "--tokenizer",
        metavar="FILE",
        help="count the tokens of every sample with this tokenizer, beside each shard, so that no "
        "plan has to (nanochat's folder or tokenizer.pkl, tokenizer.json, a .tiktoken file)",
    )
    add(
        "--max-reject-fraction",
        type=float,
        default=0.01,
        metavar="F",
        help="fail where more of the rows cannot become samples (default: 0.01)",
    )


if __name__ == "__main__":
    run(main)
