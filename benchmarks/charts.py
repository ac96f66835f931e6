"""The 753 real charts, repeated under other keys: the data for measuring reading and writing."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.common import DATA
from ocrdata.errors import SourceError
from ocrdata.sample import Sample, from_turns
from ocrdata.shards.manifest import Manifest, write_manifest
from ocrdata.shards.names import make_key
from ocrdata.shards.writer import ShardWriter

SHARD_SAMPLES = 1024


def load_charts() -> list[Sample]:
    """The charts as samples in memory. Raises SourceError if they are missing."""
    file = DATA / "charts" / "charts.jsonl"
    if not file.exists():
        raise SourceError(f"{file}: the real charts are missing, so there is nothing to measure")
    samples = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        samples.append(
            from_turns(
                [(turn["user"], turn["assistant"]) for turn in row["texts"]],
                [(file.parent / row["image"]).read_bytes()],
                source=row["source"],
                meta={"id": row["id"], "title": row["title"]},
            )
        )
    return samples


def shard_files(folder: Path, count: int) -> list[tuple[Path, range]]:
    """The path of each shard of `count` samples, and the keys in it."""
    starts = range(0, count, SHARD_SAMPLES)
    return [
        (folder / f"charts-{number:03d}.tar", range(start, min(count, start + SHARD_SAMPLES)))
        for number, start in enumerate(starts)
    ]


def write_ours(folder: Path, samples: list[Sample], count: int) -> int:
    """Write `count` samples as a complete set with its manifest. Returns the bytes of all tars."""
    shards = []
    for path, keys in shard_files(folder, count):
        with ShardWriter(path) as writer:
            for key in keys:
                writer.write(make_key(key), samples[key % len(samples)])
        shards.append(writer.close())
    manifest = Manifest("charts", tuple(shards))
    write_manifest(folder / "charts.json", manifest)
    return manifest.bytes
