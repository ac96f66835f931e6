"""Copy a shard set to another place: between folders, s3:// and servers that accept PUT, or from
https:// and hf://. Every file is verified before it can be seen there, and the manifest comes last.

    python tools/copy_shards.py shards/chartqa.json s3://bucket/charts
    python tools/copy_shards.py s3://bucket/charts/chartqa.json shards      # and back
    python tools/copy_shards.py https://host/charts/chartqa.json s3://bucket/charts --dry-run

Shards, indexes, token counts and their lists, and reports such as NAME.rejects.jsonl are copied. If
it was stopped or killed, repeat the command: it goes on with what is missing. From URL to URL, each
of the --workers has one file at a time on this machine. tools/reshard.py copies a slice.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack

from ocrdata.commands.make_shards import tokenizer_of
from ocrdata.errors import UsageError
from ocrdata.runtime.cli import Parser, add_json_flag, print_json, run
from ocrdata.runtime.progress import progress_bar
from ocrdata.runtime.units import human_bytes, human_time
from ocrdata.storage.cache import cache_folder
from ocrdata.storage.location import Location
from ocrdata.storage.sealed import digest_of
from ocrdata.storage.stores import check_scheme
from ocrdata.transfer.copy import CopyPlan, FolderTarget, UrlTarget, copy_files, files_of, plan_copy
from ocrdata.transfer.copy import target_of as open_target

PROGRAM = "tools/copy_shards.py"


def main(arguments: Sequence[str]) -> int:
    """Copy and print what was copied; returns the exit status. Raises OcrError."""
    values = build_parser().parse_args(list(arguments))
    if values.workers < 1:
        raise UsageError(f"--workers {values.workers}: must be 1 or more")
    place = Location.of(values.target)
    if place.scheme:
        check_scheme(place)
    elif values.work:
        raise UsageError("--work is the folder from which files are sent to a URL")
    tokenizer = tokenizer_of(values.tokenizer)
    source = files_of(values.source, [tokenizer.fingerprint] if tokenizer else [])
    if source.unseen:
        print(f"{source.folder / source.name}: {source.unseen}", file=sys.stderr)
    folder = Location.of(values.work).path if values.work else cache_folder()
    work = folder / f"copying-{digest_of(str(place / source.name).encode())}"
    target = open_target(source, place, work)
    began = time.monotonic()
    with ExitStack() as stack:
        if not values.dry_run:
            target.open(stack)
        plan = plan_copy(target)
        target.check_space(plan.bytes)
        if not values.dry_run:
            _copy(target, plan, values.workers)
    seconds = time.monotonic() - began
    document = {
        "name": source.name,
        "source": str(source.folder),
        "target": str(place),
        "shards": len(source.shards),
        "bytes": source.bytes,
        "copied": {"shards": len(plan.shards), "bytes": plan.bytes, "seconds": seconds},
        "dry_run": values.dry_run,
    }
    if values.json:
        print_json(document)
        return 0
    print(f"{place / source.name}: {len(source.shards):,} shards, {human_bytes(source.bytes)}")
    amount = f"{len(plan.shards):,} shards, {human_bytes(plan.bytes)}"
    if values.dry_run:
        print(f"  to copy   {amount}; nothing was written")
    elif not (plan.shards or plan.others):
        print("  already complete; nothing was copied")
    else:
        print(f"  copied    {amount} in {human_time(seconds)}")
    return 0


def _copy(target: FolderTarget | UrlTarget, plan: CopyPlan, workers: int) -> None:
    """Copy what is missing, with a bar on a terminal and a line for each shard elsewhere."""
    writing, count = threading.Lock(), len(plan.shards)
    finished: list[str] = []
    with progress_bar(plan.bytes, "B", description=target.source.name) as bar:

        def report(size: int) -> None:
            with writing:
                bar.update(size)

        def done(shard: str) -> None:
            with writing:
                finished.append(shard)
                if bar.disable:
                    print(f"{shard}: copied ({len(finished):,} of {count:,})", file=sys.stderr)

        copy_files(target, plan, workers, report, done)


def build_parser() -> Parser:
    """Build the command-line parser."""
    parser = Parser(prog=PROGRAM, description=__doc__ or "")
    add = parser.add_argument
    add("source", metavar="SRC", help="the set: its manifest, or a folder of this machine")
    add("target", metavar="DST", help="the folder to copy to, or its URL")
    add("--workers", type=int, default=4, metavar="N", help="shards that are copied at a time")
    add(
        "--tokenizer",
        metavar="FILE",
        help="copy the token counts of this tokenizer; needed for https:// and hf:// only, where "
        "files are not listed, elsewhere all counts are copied",
    )
    add(
        "--work",
        metavar="DIR",
        help="with DST at a URL: where files pass through, and where it is recorded what was sent "
        "(default: the cache folder)",
    )
    add("--dry-run", action="store_true", help="say what would be copied, and copy nothing")
    add_json_flag(parser)
    return parser


if __name__ == "__main__":
    run(main)
