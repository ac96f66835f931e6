"""Verify every byte of shards, and summarize what is in them.

    python tools/check_shards.py 'shards/chartqa-<000..017>.tar'
    python tools/check_shards.py shards/chartqa.json shards/smoltalk.json

Each SPEC is one set: a tar, a range, a glob, a folder or a manifest. Tars of the same set that are
given one by one, as a shell expands unquoted braces, are checked together. At a URL (https://,
s3://, hf://datasets/...) name the manifest. Exit status 0: no
errors. 1: damage, with one line for each damaged sample on standard output (with --json, an entry
of the document's `errors`). 2: no such shards.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ocrdata.errors import ShardError
from ocrdata.reading.spec import Resolved
from ocrdata.reading.verify import (
    ShardStatistics,
    find,
    quantile,
    stored_bytes,
    verify_shards,
)
from ocrdata.runtime.cache_flags import add_cache_flags, cache_faults
from ocrdata.runtime.cli import Parser, add_json_flag, print_json, run, shown
from ocrdata.runtime.progress import progress_bar
from ocrdata.runtime.units import human_bytes, human_time, parse_bytes
from ocrdata.shards.names import is_shard, set_location
from ocrdata.storage.block_cache import BlockCache
from ocrdata.storage.fetching import use_cache
from ocrdata.storage.files import is_file
from ocrdata.storage.location import Location


def main(arguments: Sequence[str]) -> int:
    """Check every set; returns the exit status."""
    values, problems = build_parser().parse_with_problems(list(arguments))
    for fault in cache_faults(values.cache, values.cache_limit):
        problems.add(fault)
    problems.raise_all()
    if values.cache:
        use_cache(BlockCache(Path(values.cache), parse_bytes(values.cache_limit)))
    found = [find(group) for group in together(values.specs)]
    checked = [check_set(resolved, say=not values.json) for resolved in found]
    if values.json:
        print_json({"sets": checked, "errors": sum(len(one["errors"]) for one in checked)})
    return 1 if any(one["errors"] for one in checked) else 0


def build_parser() -> Parser:
    """Build the command-line parser."""
    parser = Parser(prog="check_shards.py", description=__doc__ or "")
    parser.add_argument("specs", nargs="+", metavar="SPEC", help="shards to verify")
    add_cache_flags(parser)
    add_json_flag(parser)
    return parser


def together(specs: Sequence[str]) -> list[list[str]]:
    """Group the specs by set: tars in the same folder with the same set name go together."""
    groups: dict[str, list[str]] = {}
    for spec in specs:
        place = Location(spec)
        single = is_shard(place.name) and (bool(place.scheme) or is_file(place.text))
        groups.setdefault(set_location(place).text if single else spec, []).append(spec)
    return list(groups.values())


def check_set(found: Resolved, *, say: bool) -> dict[str, Any]:
    """Check one set; returns its figures and errors. With `say`, errors are printed as they are
    found, and then a summary."""
    contents, errors = ShardStatistics(), list[ShardError]()
    started = time.perf_counter()
    total = sum(stored_bytes(found, file) for file in found.files)
    with progress_bar(total, "B") as bar:
        for error in verify_shards(found, contents, bar.update):
            errors.append(error)
            if say:
                bar.clear()
                print(shown(str(error).splitlines()[0]), flush=True)
    seconds = time.perf_counter() - started
    if say:
        print(describe(found, contents))
        verdict = "no errors" if not errors else f"{len(errors):,} errors, each listed above"
        rate = human_bytes(total / max(seconds, 1e-9))
        print(f"  {verdict}; {human_bytes(total)} in {human_time(seconds)}, {rate}/s")
    return {**figures(found, contents), "seconds": seconds, "errors": list(map(_located, errors))}


def figures(found: Resolved, contents: ShardStatistics) -> dict[str, Any]:
    """What `describe` says, as numbers; sizes at a percentile are within 9 %."""
    manifest = found.manifest
    return {
        "shards_of": found.base,
        "manifest": manifest.name if manifest else None,
        "licence": manifest.licence if manifest else None,
        "shards": contents.shards,
        "samples": contents.samples,
        "turns": contents.turns,
        "samples_without_answer": contents.unanswered,
        "bytes": contents.bytes,
        "images": contents.images.total(),
        "image_formats": dict(contents.images.most_common()),
        "image_long_side": _percentiles(contents.long_sides),
        "sample_bytes": _percentiles(contents.sample_bytes),
        "other_fields": dict(contents.unused.most_common()),
        "sources": dict(contents.sources.most_common()),
    }


def _percentiles(bins: Counter[int]) -> dict[str, int] | None:
    names = {"p5": 0.05, "p50": 0.5, "p95": 0.95, "max": 1.0}
    return {name: quantile(bins, share) for name, share in names.items()} if bins else None


def _located(error: ShardError) -> dict[str, str]:
    return {
        "shard": error.shard,
        "key": error.key,
        "member": error.member,
        "detail": error.detail,
    }


def describe(found: Resolved, contents: ShardStatistics) -> str:
    """A few lines that summarize a set."""
    about = f"manifest {found.manifest.name}" if found.manifest else "no manifest"
    if found.manifest and found.manifest.licence:
        about += f", licence {found.manifest.licence}"
    lines = [
        f"{found.base} ({about})",
        f"  {contents.shards:,} shards, {contents.samples:,} samples, {contents.turns:,} turns, "
        f"{contents.images.total():,} images, {human_bytes(contents.bytes)}",
    ]
    if contents.unanswered:
        lines.append(
            f"  {contents.unanswered:,} of them have no answer and cannot be trained on; the first "
            f"is {contents.first_unanswered}"
        )
    if contents.images:
        lines.append(
            f"  images: {_shares(contents.images)}; longer side "
            + _spread(contents.long_sides, lambda value: f"{value:,} px")
        )
    if contents.unused:
        lines.append(f"  other fields, not part of the samples: {_shares(contents.unused)}")
    if contents.samples:
        lines.append("  bytes per sample: " + _spread(contents.sample_bytes, human_bytes))
        lines.append(f"  sources: {_shares(contents.sources)}")
    return "\n".join(lines)


def _shares(counts: Counter[str]) -> str:
    shown = [f"{name or '(none)'} {count:,}" for name, count in counts.most_common(8)]
    return ", ".join(shown) + (f" and {len(counts) - 8} more" if len(counts) > 8 else "")


def _spread(bins: Counter[int], show: Callable[[int], str]) -> str:
    values = [show(quantile(bins, share)) for share in (0.05, 0.5, 0.95, 1.0)]
    return (
        "5th percentile about {}, median about {}, 95th percentile about {}, maximum about {}"
    ).format(*values)


if __name__ == "__main__":
    run(main)
