"""Writing side by side: samples in memory to shards on disk, by `ShardWriter` and by webdataset.

    python -m benchmarks.write

Ours reads the format and size of every image, digests every member and the tar, writes an index,
and syncs everything before renaming it to its final name. webdataset's `TarWriter` does none of
that and writes to the final name directly. Both serialise the same messages as JSON. Bare writes of
the same number of bytes show how fast writing can be at all. Cases run in turns; the table has
medians. Writes benchmarks/results/write-DATE.json.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import webdataset

from benchmarks.charts import load_charts, shard_files, write_ours
from benchmarks.common import interleaved, machine, table, write_result
from ocrdata.images.decode import read_header
from ocrdata.runtime.cli import Parser, run
from ocrdata.sample import Sample
from ocrdata.shards.names import make_key

PART = 1 << 20


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="python -m benchmarks.write", description=__doc__ or "")
    parser.add_argument("--samples", type=int, default=6_024)
    parser.add_argument("--runs", type=int, default=7)
    asked = parser.parse_args(list(arguments))
    samples = load_charts()
    with tempfile.TemporaryDirectory() as name:
        size = write_ours(emptied(Path(name)), samples, asked.samples)
        timings = interleaved(cases(Path(name), samples, asked.samples, size), asked.runs)
    theirs = timings["webdataset TarWriter"].median_wall
    rows = [
        {
            "case": case,
            "MB/s": round(size / timing.median_wall / 1e6),
            "samples/s": round(asked.samples / timing.median_wall),
            "us CPU/sample": timing.median_cpu / asked.samples * 1e6,
            "x webdataset": theirs / timing.median_wall,
        }
        for case, timing in timings.items()
    ]
    print(f"{asked.samples:,} samples, {size / 1e6:,.0f} MB, {asked.runs} runs in turns\n")
    print(table(rows))
    result = {
        **machine(["webdataset", "pyarrow", "xxhash", "pillow"]),
        "samples": asked.samples,
        "bytes": size,
        "cases": rows,
        "seconds": {case: timing.wall for case, timing in timings.items()},
    }
    print(f"\nwritten to {write_result('write', result)}")
    return 0


def emptied(folder: Path) -> Path:
    """The folder, emptied of what an earlier round left in it."""
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


def cases(
    folder: Path, samples: list[Sample], count: int, size: int
) -> dict[str, Callable[[], None]]:
    endings = [read_header(sample.images[0]).format for sample in samples]
    part = os.urandom(PART)

    def ours() -> None:
        write_ours(emptied(folder), samples, count)

    def theirs() -> None:
        for path, keys in shard_files(emptied(folder), count):
            with webdataset.TarWriter(str(path)) as writer:
                for key in keys:
                    sample = samples[key % len(samples)]
                    writer.write(
                        {
                            "__key__": make_key(key),
                            "json": {
                                "messages": sample.messages,
                                "source": sample.source,
                                "meta": sample.meta,
                            },
                            endings[key % len(samples)]: sample.images[0],
                        }
                    )

    def bare(*, synced: bool) -> None:
        files = shard_files(emptied(folder), count)
        for path, _ in files:
            with path.open("wb", buffering=0) as file:
                for _ in range(size // len(files) // PART):
                    file.write(part)
                if synced:
                    os.fsync(file.fileno())

    return {
        "bare writes": lambda: bare(synced=False),
        "bare writes, synced": lambda: bare(synced=True),
        "ours": ours,
        "webdataset TarWriter": theirs,
    }


if __name__ == "__main__":
    run(main)
