"""Raw reading side by side: the bytes of every member, without and with parsing the JSON.

    python -m benchmarks.read

The 753 real charts, repeated under other keys to 12,048 samples in 12 tars, are read in one
process, with a warm page cache, by `open_shards` (every digest verified) and by webdataset from the
same tars; `cat` and bare `preadv` loops show how fast reading can be at all. Each case starts with
nothing opened, except those "opened before", whose indexes are in memory, as in every epoch after
the first. The cache folder holds the blocks of the indexes, except when the set was "never read
before". Cases run in turns. The table has medians, and the least CPU time, which other load affects
least. Then the time from nothing opened to the sample at 90 %, and the memory of two workers.
Writes benchmarks/results/read-DATE.json.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from benchmarks.charts import load_charts, write_ours
from benchmarks.common import ROOT, Timing, interleaved, machine, table, write_result
from ocrdata.reading.sequential import READ_BYTES
from ocrdata.reading.view import open_shards
from ocrdata.runtime.cli import Parser, run
from ocrdata.storage.cache import CACHE_VARIABLE

WANTED_RATIO = 3.0
WANTED_TO_CAT = 1.5
WANTED_FIRST_MS = 1.0
WANTED_MEMORY_MB = 250.0
WORKERS = 2


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="python -m benchmarks.read", description=__doc__ or "")
    parser.add_argument("--samples", type=int, default=12_048)
    parser.add_argument("--runs", type=int, default=7)
    asked = parser.parse_args(list(arguments))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ[CACHE_VARIABLE] = str(folder / "cache")
        size = write_ours(folder, load_charts(), asked.samples)
        result = measure(folder, size, asked.samples, asked.runs)
    print(f"written to {write_result('read', result)}")
    return 0


def measure(folder: Path, size: int, count: int, runs: int) -> dict[str, object]:
    files = sorted(folder.glob("*.tar"))
    timings = interleaved(cases(files, count), runs)
    slow, cat = timings["webdataset"].median_wall, timings["cat"].median_wall
    rows = [
        {
            "case": case,
            "samples/s": round(count / timing.median_wall),
            "GB/s": size / timing.median_wall / 1e9,
            "us/sample": timing.median_wall / count * 1e6,
            "us CPU": timing.median_cpu / count * 1e6,
            "least us CPU": min(timing.cpu) / count * 1e6,
            "x cat": timing.median_wall / cat,
            "x webdataset": slow / timing.median_wall,
        }
        for case, timing in timings.items()
    ]
    first = first_samples(folder, files, count, runs)
    memory = [peak_memory(list(map(str, files)), count) for _ in range(3)]
    ratio = slow / timings["ours"].median_wall
    print(f"{count:,} samples, {size / 1e6:,.0f} MB, {len(files)} tars, {runs} runs in turns\n")
    print(table(rows))
    to_cat = {case: timing.median_wall / cat for case, timing in timings.items() if "ours" in case}
    print(
        f"\nraw, in order: {ratio:.1f}x webdataset (wanted: {WANTED_RATIO:.0f}x), "
        f"{to_cat['ours']:.1f}x the time of cat (wanted: {WANTED_TO_CAT:.1f}x); views "
        f"{to_cat['ours, views']:.1f}x, opened before {to_cat['ours, views, opened before']:.1f}x"
    )
    for case, timing in first.items():
        print(
            f"first sample at 90 %, {case}: {timing.median_wall * 1e3:.1f} ms, "
            f"{timing.median_cpu * 1e3:.1f} ms of CPU"
        )
    print(f"(wanted: under {WANTED_FIRST_MS:.0f} ms)")
    print(
        f"memory of two workers and their parent: {max(memory) / 1e6:.0f} MB (PSS, wanted: under "
        f"{WANTED_MEMORY_MB:.0f} MB)"
    )
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
        "peak_memory_two_workers_bytes": memory,
        "ratio_to_webdataset": ratio,
        "time_to_that_of_cat": to_cat,
    }


def cases(files: Sequence[Path], count: int) -> dict[str, Callable[[], None]]:
    spec, names = list(map(str, files)), list(map(str, files))
    order = list(range(count))
    random.Random(0).shuffle(order)
    opened, caches = open_shards(spec), itertools.count()

    def cat() -> None:
        subprocess.run(["cat", *names], stdout=subprocess.DEVNULL, check=True)

    def pread(size: int) -> None:
        window = bytearray(size)
        for name in names:
            handle, at = os.open(name, os.O_RDONLY), 0
            while read := os.preadv(handle, [window], at):
                at += read
            os.close(handle)

    def ours(*, verify: bool = True) -> None:
        drain(open_shards(spec, verify=verify).iter_members(), count)

    def never_read_before() -> None:
        before = os.environ[CACHE_VARIABLE]
        os.environ[CACHE_VARIABLE] = f"{before}-{next(caches)}"
        ours()
        os.environ[CACHE_VARIABLE] = before

    def shuffled() -> None:
        shards = open_shards(spec)
        drain((shards.members(at) for at in order), count)

    def theirs() -> Iterable[dict[str, bytes]]:
        import webdataset  # here, so that our workers do not load it: their memory is measured

        return webdataset.WebDataset(names, shardshuffle=False)  # type: ignore[no-any-return]  # no types

    return {
        "cat": cat,
        "preadv of 128 KiB, nothing else": lambda: pread(1 << 17),
        "preadv of a run, nothing else": lambda: pread(READ_BYTES),
        "ours": ours,
        "ours, views": lambda: drain(open_shards(spec).iter_views(), count),
        "ours, opened before": lambda: drain(opened.iter_members(), count),
        "ours, views, opened before": lambda: drain(opened.iter_views(), count),
        "ours, never read before": never_read_before,
        "ours, unverified": lambda: ours(verify=False),
        "ours, shuffled": shuffled,
        "webdataset": lambda: quietly(drain, theirs(), count),
        "ours, with JSON": lambda: parse(open_shards(spec).iter_members(), count),
        "ours, as Sample": lambda: drain(open_shards(spec), count),
        "webdataset, with JSON": lambda: quietly(parse, theirs(), count),
    }


def quietly(
    through: Callable[[Iterable[dict[str, bytes]], int], None],
    samples: Iterable[dict[str, bytes]],
    count: int,
) -> None:
    """Ignore the warnings about files that webdataset leaves for the garbage collector to close."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        through(samples, count)


def drain(samples: Iterable[object], count: int) -> None:
    """Read every sample into memory. Raises AssertionError unless there are `count`."""
    seen = 0
    for _ in samples:
        seen += 1
    if seen != count:
        raise AssertionError(f"{seen:,} samples read, {count:,} were written")


def parse(samples: Iterable[dict[str, bytes]], count: int) -> None:
    """As `drain`, and parse each sample's JSON."""
    seen = 0
    for members in samples:
        for name, data in members.items():
            if name.endswith("json"):
                json.loads(data)
        seen += 1
    if seen != count:
        raise AssertionError(f"{seen:,} samples read, {count:,} were written")


def first_samples(folder: Path, files: Sequence[Path], count: int, runs: int) -> dict[str, Timing]:
    """Time from nothing opened to the members and parsed JSON of the sample at 90 %."""
    at = count * 9 // 10

    def ours() -> None:
        parse([open_shards(str(folder)).members(at)], 1)

    def theirs() -> None:
        import webdataset

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            rows = iter(webdataset.WebDataset(list(map(str, files)), shardshuffle=False))
            for _ in range(at):
                next(rows)
            parse([next(rows)], 1)

    return interleaved({"ours": ours, "webdataset (reads up to it)": theirs}, runs)


def peak_memory(spec: list[str], count: int) -> int:
    """Peak memory in bytes of `WORKERS` processes and their parent; a page that several share is
    counted once (PSS). Parent and workers open the set; each worker reads its part of the samples.
    """
    code = (
        "import sys\n"
        "from benchmarks.read import parent\n"
        "if __name__ == '__main__': parent(sys.argv[1:])"
    )
    words = [sys.executable, "-c", code, str(count), *spec]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT)
    return int(done.stdout)


def parent(words: Sequence[str]) -> None:
    """The parent process of `peak_memory`. Prints the number of bytes."""
    count, spec = int(words[0]), list(words[1:])
    shards = open_shards(spec)
    assert len(shards) == count
    context = multiprocessing.get_context("spawn")
    cuts = [count * worker // WORKERS for worker in range(WORKERS + 1)]
    workers = [context.Process(target=worker, args=(spec, a, b)) for a, b in pairwise(cuts)]
    for process in workers:
        process.start()
    peak = 0
    while any(process.is_alive() for process in workers):
        peak = max(peak, sum(map(pss, [os.getpid(), *(process.pid for process in workers)])))
        workers[0].join(0.002)
    for process in workers:
        process.join()
        assert process.exitcode == 0
    print(peak)


def worker(spec: list[str], start: int, stop: int) -> None:
    """Read a part several times, to give memory that grows the time to do so."""
    for _ in range(5):
        drain(open_shards(spec)[start:stop].iter_members(), stop - start)


def pss(process: int) -> int:
    """Memory of a process in bytes, shared pages divided by their users; 0 if it has ended."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Pss:"))


if __name__ == "__main__":
    run(main)
