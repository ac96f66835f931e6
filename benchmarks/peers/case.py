"""Runs some parts of one loader for one round, in a process of its own.

    python -m benchmarks.peers.case LOADER FOLDER PART ... --samples N --workers 2

Prints one JSON object per line: {"row": ..., ...}. After "memory begins" and "memory ends" it waits
for a line on standard input, so that the parent never measures memory while something is timed.
Whatever the loader itself prints goes to standard error.

Seconds are wall time. They exclude imports and one-time costs of the process: 64 samples are read
or written before anything is timed. Samples and bytes read are counted; if they differ from what
was written, the process fails.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import io
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from benchmarks.peers import flips
from benchmarks.peers.peer import Batch, Job, Pair, Peer, Source, charts, chats, tensors
from ocrdata.images.decode import decode_rgb
from ocrdata.images.letterbox import shrink_to_fit

PEERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ours": ("ours:Ours", ()),
    "ours, views": ("ours:Views", ()),
    "webdataset": ("wds:Webdataset", ("webdataset",)),
    "mosaicml-streaming": ("mosaic:Mosaic", ("mosaicml-streaming",)),
    "litdata": ("lit:Litdata", ("litdata",)),
    "megatron-energon": ("energon:Energon", ("megatron-energon",)),
    "grain": ("array:Grain", ("grain", "array-record")),
    "datasets, Parquet": ("hub:Parquet", ("datasets", "torchdata")),
    "datasets, Arrow": ("hub:Arrow", ("datasets",)),
    "plain files, DataLoader": ("plain:Plain", ("torch",)),
}
"""Name -> module and class of the adapter, and the packages it measures."""

RAW_BATCH, PIXEL_BATCH = 64, 10
PIXELS, SIDE, FILL = 200, 1024, 127
FLIPPED = 200

CHANNEL = [sys.stdout]
"""The stream that results are printed to."""

KEPT: list[object] = []
"""Objects kept alive until the process ends: some loaders take half a minute to stop workers."""


def load(name: str) -> Peer:
    """The adapter of a loader. Raises ImportError if the loader is not installed."""
    module, kind = PEERS[name][0].split(":")
    peer: Peer = getattr(importlib.import_module(f"benchmarks.peers.{module}"), kind)()
    return peer


def raw(text: bytes, image: bytes) -> Pair:
    return text, image


def usual(_: bytes, image: bytes) -> npt.NDArray[np.uint8]:
    """What users usually write: Pillow, padded to a square, bicubic; uint8 [1024, 1024, 3]."""
    opened = Image.open(io.BytesIO(image)).convert("RGB")
    padded = ImageOps.pad(opened, (SIDE, SIDE), Image.Resampling.BICUBIC, color=(FILL,) * 3)
    return np.array(padded)


def shipped(_: bytes, image: bytes) -> npt.NDArray[np.uint8]:
    """Ours: decoded only, since the device letterboxes; uint8 [H, W, 3]."""
    return shrink_to_fit(decode_rgb(image), SIDE)


def say(row: str, **numbers: object) -> None:
    print(json.dumps({"row": row, **numbers}), file=CHANNEL[0], flush=True)


def meet(row: str) -> None:
    """Print a row and wait until the parent has answered."""
    say(row)
    sys.stdin.readline()


def timed(rows: Iterable[Batch | Pair], count: Callable[[Any], int]) -> tuple[int, float, float]:
    """(sum of `count` over all rows, seconds to the first row, seconds to the end)."""
    total, first, began = 0, 0.0, time.perf_counter()
    for row in rows:
        first = first or time.perf_counter() - began
        total += count(row)
    return total, first, time.perf_counter() - began


def weigh(pair: Any) -> int:
    """Bytes, plus 2^40 per sample: one sum checks the number of both."""
    return len(pair[0]) + len(pair[1]) + (1 << 40)


def weigh_all(batch: Any) -> int:
    return sum(map(weigh, batch))


def wanted(source: Source) -> int:
    return sum(weigh(source.pair(key)) for key in range(source.count))


def expect(found: object, right: object, what: str) -> None:
    if found != right:
        raise SystemExit(f"{what}: read {str(found)[:200]}, but {str(right)[:200]} was written")


def part_write(peer: Peer, folder: Path, asked: argparse.Namespace) -> None:
    peer.write(charts(64), emptied(folder / "warm"))
    for name, source in sources(asked.samples).items():
        size = sum(len(text) + len(image) for text, image in map(source.pair, range(source.count)))
        into = emptied(folder / name)
        os.sync()
        gc.collect()
        began = time.perf_counter()
        peer.write(source, into)
        seconds = time.perf_counter() - began
        say(f"write {name}", seconds=seconds, bytes=size, samples=source.count)
    os.sync()


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def sources(count: int) -> dict[str, Source]:
    every = charts(1).samples
    return {
        "charts": charts(count),
        "chats": chats(count),
        "pixels": Source(every[::3], min(PIXELS, count), shard=PIXELS // 2),
    }


def part_read(peer: Peer, folder: Path, asked: argparse.Namespace) -> None:
    known = sources(asked.samples)
    for _ in itertools.islice(peer.samples(folder / "charts"), 64):
        pass
    for name in ("charts", "chats"):
        found, _, seconds = timed(peer.samples(folder / name), weigh)
        expect(found, wanted(known[name]), f"{name}, no workers")
        say(f"raw {name}", seconds=seconds, samples=asked.samples)
    at = asked.samples * 9 // 10
    peer.first(folder / "charts", at // 2)
    began = time.perf_counter()
    pair = peer.first(folder / "charts", at)
    say("first", seconds=time.perf_counter() - began)
    expect(pair, known["charts"].pair(at), f"sample {at}")
    job = Job(asked.workers, RAW_BATCH, raw, list)
    found, first, seconds = timed(peer.batches(folder / "charts", job), weigh_all)
    expect(found, wanted(known["charts"]), f"charts, {asked.workers} workers")
    say("raw charts, workers", seconds=seconds, first=first, samples=asked.samples)


def part_resume(peer: Peer, folder: Path, asked: argparse.Namespace) -> None:
    job = Job(asked.workers, RAW_BATCH, raw, list)
    batches = asked.samples // 2 // RAW_BATCH
    meet("memory begins")
    resume, following = peer.pause(folder / "charts", job, batches)
    meet("memory ends")
    gc.collect()
    began = time.perf_counter()
    batch = resume()
    say("resume", seconds=time.perf_counter() - began, exact=batch == following)
    KEPT.append(resume)


def part_pixels(peer: Peer, folder: Path, asked: argparse.Namespace) -> None:
    count = sources(asked.samples)["pixels"].count
    for name, make, collate in (("usual", usual, np.stack), ("shipped", shipped, list)):
        tensors(collate([make(*charts(1).pair(0))]))
        job = Job(asked.workers, PIXEL_BATCH, make, collate)
        found, first, seconds = timed(peer.batches(folder / "pixels", job), len)
        expect(found, count, f"pixels, {name}")
        say(f"pixels {name}", seconds=seconds, first=first, samples=count)


def part_flips(peer: Peer, folder: Path, _: argparse.Namespace) -> None:
    source = Source(charts(1).samples, FLIPPED, shard=FLIPPED // 2)
    into = emptied(folder / "flips")
    peer.write(source, into)
    say("flips", **flips.count(peer, into, source))


PARTS: dict[str, Callable[[Peer, Path, argparse.Namespace], None]] = {
    "write": part_write,
    "read": part_read,
    "resume": part_resume,
    "pixels": part_pixels,
    "flips": part_flips,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loader", choices=PEERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("parts", choices=PARTS, nargs="+")
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    CHANNEL[0] = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer = load(asked.loader)
    for part in asked.parts:
        PARTS[part](peer, asked.folder, asked)
    say("end")
    # Exit without waiting for threads, workers or caches: all results have been printed.
    os._exit(0)


if __name__ == "__main__":
    main()
