"""datasets: streamed Parquet files, and Arrow files on disk; torchdata's loader keeps the state.

Its documentation describes both: `load_dataset(streaming=True)` over Parquet, the format of data
sets on the hub, and `load_from_disk` over memory-mapped Arrow files, with random access to rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, Features, IterableDataset, Value
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from benchmarks.peers.peer import Batch, Job, Pair, Source, tensors

FEATURES = Features({"json": Value("binary"), "image": Value("binary")})
datasets.disable_progress_bars()


def shard(source: Source, keys: range) -> Dataset:
    pairs = [source.pair(key) for key in keys]
    columns = {"json": [text for text, _ in pairs], "image": [image for _, image in pairs]}
    return Dataset.from_dict(columns, features=FEATURES)


def collate(job: Job) -> Callable[[list[dict[str, bytes]]], Batch]:
    def made(rows: list[dict[str, bytes]]) -> Batch:
        return tensors(job.collate([job.make(row["json"], row["image"]) for row in rows]))

    return made


class Parquet:
    def write(self, source: Source, folder: Path) -> None:
        for number, keys in enumerate(source.shards()):
            shard(source, keys).to_parquet(folder / f"data-{number:03d}.parquet")

    def samples(self, folder: Path) -> Iterator[Pair]:
        return ((row["json"], row["image"]) for row in streamed(folder))

    def batches(self, folder: Path, job: Job) -> Iterator[Batch]:
        return iter(self._loader(folder, job))

    def first(self, folder: Path, at: int) -> Pair:
        row = next(iter(streamed(folder).skip(at)))
        return row["json"], row["image"]

    def pause(self, folder: Path, job: Job, batches: int) -> tuple[Callable[[], Batch], Batch]:
        before = self._loader(folder, job)
        reading = iter(before)
        for _ in range(batches):
            next(reading)
        state = before.state_dict()
        following: Batch = next(reading)
        del reading, before

        def resume() -> Batch:
            again = self._loader(folder, job)
            again.load_state_dict(state)
            made: Batch = next(iter(again))
            return made

        return resume, following

    def _loader(self, folder: Path, job: Job) -> StatefulDataLoader[Any]:
        return StatefulDataLoader(
            streamed(folder),
            batch_size=job.batch,
            num_workers=job.workers,
            collate_fn=collate(job),
        )


class Arrow:
    def write(self, source: Source, folder: Path) -> None:
        shards = [shard(source, keys) for keys in source.shards()]
        datasets.concatenate_datasets(shards).save_to_disk(folder, num_shards=len(shards))

    def samples(self, folder: Path) -> Iterator[Pair]:
        return ((row["json"], row["image"]) for row in datasets.load_from_disk(folder))

    def batches(self, folder: Path, job: Job) -> Iterator[Batch]:
        return self._from(folder, job, 0)

    def first(self, folder: Path, at: int) -> Pair:
        row = datasets.load_from_disk(folder)[at]
        return row["json"], row["image"]

    def pause(self, folder: Path, job: Job, batches: int) -> tuple[Callable[[], Batch], Batch]:
        following = next(itertools.islice(self.batches(folder, job), batches, None))
        # Rows are read by position, so the state is the number of rows read.
        return lambda: next(self._from(folder, job, batches * job.batch)), following

    def _from(self, folder: Path, job: Job, at: int) -> Iterator[Batch]:
        rows = datasets.load_from_disk(folder).skip(at)
        return iter(
            DataLoader(rows, batch_size=job.batch, num_workers=job.workers, collate_fn=collate(job))
        )


def streamed(folder: Path) -> IterableDataset:
    files = sorted(map(str, folder.glob("*.parquet")))
    found: IterableDataset = datasets.load_dataset(
        "parquet", data_files=files, split="train", streaming=True
    )
    return found
