"""Compressed and plain shards of real chats: size, reading speed, time to reach any sample.

    python -m benchmarks.compress

`ShardWriter` writes the 12,000 real chats as `.tar`, and as `.tar.zst` with every frame size and
level below. The sets are then read from start to end, in turns (bytes of all members, every digest
verified, no JSON parsed), and at random positions, each time from nothing opened to the sample
("start"). `FRAME_BYTES` and `LEVEL` in ocrdata/shards/frames.py were chosen from this table. Writes
benchmarks/results/compress-DATE.json.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import DATA, interleaved, machine, table, write_result
from ocrdata.errors import SourceError
from ocrdata.reading.view import open_shards
from ocrdata.runtime.cli import Parser, run
from ocrdata.sample import Sample
from ocrdata.shards.frames import FRAME_BYTES, LEVEL
from ocrdata.shards.names import COMPRESSED, PLAIN, make_key
from ocrdata.shards.output import ZstdOptions
from ocrdata.shards.writer import ShardWriter
from ocrdata.sources.jsonl import JsonlSource

SHARD_SAMPLES = 1024
SIZES = (32, 64, 128, 256, 512, 1024)
LEVELS = (3, 9, 15, 19)
STARTS = 40
WANTED_SMALLER, WANTED_SPEED, WANTED_START_MS = 3.0, 0.6, 20.0


def load_chats() -> list[Sample]:
    """The chats as samples in memory. Raises SourceError if they are missing."""
    file = DATA / "chat" / "chat.jsonl"
    if not file.exists():
        raise SourceError(f"{file}: the real chats are missing, so there is nothing to measure")
    source = JsonlSource(file, None)
    return [sample for _, sample in source.rows(0, source.count()) if isinstance(sample, Sample)]


@dataclass(frozen=True)
class Set:
    """The chats as one shard set, with what it took to write it."""

    name: str
    folder: Path
    frames: ZstdOptions | None
    bytes: int
    seconds: float


def write_set(folder: Path, samples: Sequence[Sample], frames: ZstdOptions | None) -> Set:
    """Write all shards: plain tars if `frames` is None, else compressed ones."""
    folder.mkdir()
    began, total = time.process_time(), 0
    for number, start in enumerate(range(0, len(samples), SHARD_SAMPLES)):
        path = folder / f"chat-{number:03d}{COMPRESSED if frames else PLAIN}"
        with ShardWriter(path, frames=frames or ZstdOptions()) as writer:
            for at, sample in enumerate(samples[start : start + SHARD_SAMPLES], start):
                writer.write(make_key(at), sample)
        total += writer.close().bytes
    name = f"{frames.size >> 10} KiB, level {frames.level}" if frames else "plain .tar"
    return Set(name, folder, frames, total, time.process_time() - began)


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="python -m benchmarks.compress", description=__doc__ or "")
    parser.add_argument("--runs", type=int, default=7)
    asked = parser.parse_args(list(arguments))
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name), asked.runs)
    print(f"written to {write_result('compress', result)}")
    return 0


def measure(folder: Path, runs: int) -> dict[str, object]:
    samples = load_chats()
    kinds = [None, *(ZstdOptions(size << 10, level) for size in SIZES for level in LEVELS)]
    sets = [write_set(folder / str(n), samples, frames) for n, frames in enumerate(kinds)]
    reading = interleaved({one.name: through(one, len(samples)) for one in sets}, runs)
    starts = all_starts(sets, len(samples))
    plain = sets[0]
    rows = []
    for one in sets:
        timing = reading[one.name]
        rows.append(
            {
                "case": one.name,
                "MB": one.bytes / 1e6,
                "x smaller": plain.bytes / one.bytes,
                "write MB/s CPU": plain.bytes / one.seconds / 1e6,
                "read us/sample": timing.median_wall / len(samples) * 1e6,
                "us CPU": timing.median_cpu / len(samples) * 1e6,
                "speed of plain": reading[plain.name].median_wall / timing.median_wall,
                "start ms": statistics.median(starts[one.name]) * 1e3,
                "start worst ms": max(starts[one.name]) * 1e3,
            }
        )
    print(f"{len(samples):,} chats, {runs} runs in turns, {STARTS} random starts\n")
    print(table(rows))
    name = f"{FRAME_BYTES >> 10} KiB, level {LEVEL}"
    ours = next(row for row in rows if row["case"] == name)
    print(
        f"\nours ({name}): {ours['x smaller']:.1f}x smaller (wanted: {WANTED_SMALLER:.0f}x), "
        f"{ours['speed of plain']:.0%} of the speed of plain (wanted: {WANTED_SPEED:.0%}), "
        f"start {ours['start ms']:.1f} ms, at worst {ours['start worst ms']:.1f} "
        f"(wanted: {WANTED_START_MS:.0f})"
    )
    return {
        **machine(["zstandard", "pyarrow", "xxhash"]),
        "samples": len(samples),
        "cases": rows,
        "seconds": {case: timing.wall for case, timing in reading.items()},
        "chosen": name,
    }


def through(one: Set, count: int) -> Callable[[], None]:
    """A function that reads every member of a set in order."""

    def read() -> None:
        assert sum(1 for _ in open_shards(str(one.folder)).iter_members()) == count

    return read


def all_starts(sets: Sequence[Set], count: int) -> dict[str, list[float]]:
    """Seconds from nothing opened to one sample, by set; random positions, the same for each."""
    positions = random.Random(0).choices(range(count), k=STARTS)
    seconds: dict[str, list[float]] = {one.name: [] for one in sets}
    for at in positions:
        for one in sets:
            began = time.perf_counter()
            open_shards(str(one.folder)).members(at)
            seconds[one.name].append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    run(main)
