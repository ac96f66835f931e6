"""mosaicml-streaming: MDSWriter, StreamingDataset, StreamingDataLoader with its state."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Replace its vision classes (CIFAR, ImageNet), which are not used here. Only they need torchvision,
# and the package index has no torchvision build that works with torch for CPUs.
sys.modules.setdefault("streaming.vision", types.ModuleType("streaming.vision"))

# After the replacement above, because importing streaming imports its vision classes.
from streaming import MDSWriter, StreamingDataLoader, StreamingDataset  # noqa: E402
from streaming.base.util import clean_stale_shared_memory  # noqa: E402

from benchmarks.peers.peer import Batch, Job, Pair, Source, tensors  # noqa: E402

COLUMNS = {"json": "bytes", "image": "bytes"}


class Mosaic:
    def __init__(self) -> None:
        clean_stale_shared_memory()

    def write(self, source: Source, folder: Path) -> None:
        with MDSWriter(out=str(folder), columns=COLUMNS) as writer:
            for key in range(source.count):
                text, image = source.pair(key)
                writer.write({"json": text, "image": image})

    def samples(self, folder: Path) -> Iterator[Pair]:
        # The batch size is only a hint here: it reads eight batches ahead, then sleeps for 7 ms.
        return ((row["json"], row["image"]) for row in dataset(folder, 64))

    def batches(self, folder: Path, job: Job) -> Iterator[Batch]:
        return (batch["made"] for batch in loader(folder, job))

    def first(self, folder: Path, at: int) -> Pair:
        row = dataset(folder)[at]
        return row["json"], row["image"]

    def pause(self, folder: Path, job: Job, batches: int) -> tuple[Callable[[], Batch], Batch]:
        before = loader(folder, job)
        reading = iter(before)
        for _ in range(batches):
            next(reading)
        state = before.state_dict()
        following: Batch = next(reading)["made"]
        del reading, before
        clean_stale_shared_memory()

        def resume() -> Batch:
            again = loader(folder, job)
            again.load_state_dict(state)
            made: Batch = next(iter(again))["made"]
            return made

        return resume, following


def dataset(folder: Path, batch: int = 1) -> StreamingDataset:
    return StreamingDataset(local=str(folder), shuffle=False, batch_size=batch)


def loader(folder: Path, job: Job) -> StreamingDataLoader:
    def collate(rows: list[dict[str, bytes]]) -> dict[str, Any]:
        # A dict, because for a list its state would count the length of the first row.
        made = job.collate([job.make(row["json"], row["image"]) for row in rows])
        return {"made": tensors(made)}

    return StreamingDataLoader(
        dataset(folder, job.batch),
        batch_size=job.batch,
        num_workers=job.workers,
        collate_fn=collate,
    )
