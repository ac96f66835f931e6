"""Raw reading side by side: the bytes of every member and the parsed JSON, from a warm cache.

    python -m benchmarks.read

The 753 real charts, repeated under other keys to 12,048 samples in 12 tars, are read in one
process by `open_shards` (every digest verified) and by webdataset from the very same tars; `cat`
and a bare `pread` loop show the floor. Cases run in turns; medians are printed. Then the first
sample at position 90 % from a set that was opened for it. Writes benchmarks/results/read-DATE.json.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import webdataset

from benchmarks.charts import load_charts, write_ours
from benchmarks.common import Timing, interleaved, machine, table, write_result
from ocrdata.command import Parser, run
from ocrdata.reader import open_shards
from ocrdata.shardset import RUN_BYTES

WANTED_RATIO = 3.0
WANTED_FIRST_MS = 20.0


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="python -m benchmarks.read", description=__doc__ or "")
    parser.add_argument("--samples", type=int, default=12_048)
    parser.add_argument("--runs", type=int, default=7)
    asked = parser.parse_args(list(arguments))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_ours(folder, load_charts(), asked.samples)
        result = measure(folder, size, asked.samples, asked.runs)
    print(f"written to {write_result('read', result)}")
    return 0


def measure(folder: Path, size: int, count: int, runs: int) -> dict[str, object]:
    files = sorted(folder.glob("*.tar"))
    timings = interleaved(cases(files, count), runs)
    slow = timings["webdataset"].median_wall
    rows = [
        {
            "case": case,
            "samples/s": round(count / timing.median_wall),
            "GB/s": size / timing.median_wall / 1e9,
            "us/sample": timing.median_wall / count * 1e6,
            "us CPU": timing.median_cpu / count * 1e6,
            "x webdataset": slow / timing.median_wall,
        }
        for case, timing in timings.items()
    ]
    first = first_samples(folder, files, count, runs)
    ratio = slow / timings["ours, in order"].median_wall
    print(f"{count:,} samples, {size / 1e6:,.0f} MB, {len(files)} tars, {runs} runs in turns\n")
    print(table(rows))
    print(f"\nin order {ratio:.1f}x webdataset (wanted: {WANTED_RATIO:.0f}x)")
    for case, timing in first.items():
        print(
            f"first sample at 90 %, {case}: {timing.median_wall * 1e3:.1f} ms, "
            f"of them {timing.median_cpu * 1e3:.1f} ms CPU"
        )
    print(f"(wanted: under {WANTED_FIRST_MS:.0f} ms)")
    return {
        **machine(["webdataset", "pyarrow", "xxhash"]),
        "samples": count,
        "bytes": size,
        "cases": rows,
        "seconds": {case: timing.wall for case, timing in timings.items()},
        "first_sample_at_90_percent_ms": {
            case: {"wall": timing.median_wall * 1e3, "cpu": timing.median_cpu * 1e3}
            for case, timing in first.items()
        },
        "ratio_to_webdataset": ratio,
    }


def cases(files: Sequence[Path], count: int) -> dict[str, Callable[[], None]]:
    spec, names = list(map(str, files)), list(map(str, files))
    order = list(range(count))
    random.Random(0).shuffle(order)

    def cat() -> None:
        subprocess.run(["cat", *names], stdout=subprocess.DEVNULL, check=True)

    def pread() -> None:
        window = bytearray(RUN_BYTES)
        for name in names:
            handle, at = os.open(name, os.O_RDONLY), 0
            while read := os.preadv(handle, [window], at):
                at += read
            os.close(handle)

    def ours() -> None:
        consume(open_shards(spec).iter_members(), count)

    def unverified() -> None:
        consume(open_shards(spec, verify=False).iter_members(), count)

    def shuffled() -> None:
        shards = open_shards(spec)
        consume((shards.members(at) for at in order), count)

    def samples() -> None:
        assert sum(1 for _ in open_shards(spec)) == count

    def theirs() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            consume(webdataset.WebDataset(names, shardshuffle=False), count)

    return {
        "cat": cat,
        "pread, nothing else": pread,
        "ours, in order": ours,
        "ours, in order, unverified": unverified,
        "ours, shuffled": shuffled,
        "ours, as Sample": samples,
        "webdataset": theirs,
    }


def consume(samples: Iterable[dict[str, bytes]], count: int) -> None:
    """Parse each sample's JSON; its other members are bytes already."""
    seen = 0
    for members in samples:
        for name, data in members.items():
            if name.endswith("json"):
                json.loads(data)
        seen += 1
    if seen != count:
        raise AssertionError(f"{seen:,} samples read, {count:,} were written")


def first_samples(folder: Path, files: Sequence[Path], count: int, runs: int) -> dict[str, Timing]:
    """From nothing opened to one sample's members and JSON."""
    at = count * 9 // 10

    def ours() -> None:
        consume([open_shards(str(folder)).members(at)], 1)

    def theirs() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            rows = iter(webdataset.WebDataset(list(map(str, files)), shardshuffle=False))
            for _ in range(at):
                next(rows)
            consume([next(rows)], 1)

    return interleaved({"ours": ours, "webdataset (reads up to it)": theirs}, runs)


if __name__ == "__main__":
    run(main)
