"""The interface of a loader in this benchmark, and the samples that all loaders get.

A sample is the same for all: the bytes of its JSON (made by `Sample.to_json` while writing, so that
every loader is charged for making them) and the original bytes of its image, `b""` for a chat.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.charts import SHARD_SAMPLES, load_charts
from benchmarks.common import DATA
from ocrdata.sample import Sample, text_part

if TYPE_CHECKING:
    import torch

Pair = tuple[bytes, bytes]
"""The bytes of a JSON and of an image."""

AnyPair = tuple[bytes | memoryview, bytes | memoryview]

Batch = Any
"""A list of what `Job.make` returned, or these stacked as one array or tensor."""


@dataclass(frozen=True)
class Source:
    """`count` samples: `samples`, repeated under other keys."""

    samples: list[Sample]
    count: int
    shard: int = SHARD_SAMPLES

    def sample(self, key: int) -> Sample:
        return self.samples[key % len(self.samples)]

    def pair(self, key: int) -> Pair:
        sample = self.sample(key)
        return sample.to_json(), sample.images[0] if sample.images else b""

    def shards(self) -> list[range]:
        """The keys of each shard, for formats written shard by shard."""
        starts = range(0, self.count, self.shard)
        return [range(start, min(self.count, start + self.shard)) for start in starts]


def charts(count: int) -> Source:
    return Source(load_charts(), count)


def chats(count: int) -> Source:
    """The real conversations, without images."""
    samples = []
    with (DATA / "chat" / "chat.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in itertools.islice(file, count)]
    for row in rows:
        messages = [
            {"role": message["role"], "content": [text_part(message["content"])]}
            for message in row["messages"]
        ]
        samples.append(Sample(messages=messages, source=row["source"]))
    return Source(samples, count)


@dataclass(frozen=True)
class Job:
    """Reading with workers. In the worker, `make` converts a sample and `collate` turns `batch` of
    those into a batch. Pixels are still arrays then; each loader calls `tensors` itself."""

    workers: int
    batch: int
    make: Callable[[bytes, bytes], Any]
    collate: Callable[[list[Any]], Batch]


def tensors(batch: Batch) -> Batch:
    """A batch with its arrays as tensors, not copied; JSON and image bytes are left as they are."""
    if isinstance(batch, np.ndarray):
        return as_tensor(batch)
    return [as_tensor(row) if isinstance(row, np.ndarray) else row for row in batch]


def as_tensor(array: npt.NDArray[np.uint8]) -> torch.Tensor:
    # Not imported at the top: raw reading needs no torch, and its memory is measured.
    import torch

    return torch.from_numpy(array)


class Peer(Protocol):
    """A loader, used as its documentation recommends. Every method reopens the data set."""

    def write(self, source: Source, folder: Path) -> None:
        """Write all samples in the loader's own format."""

    def samples(self, folder: Path) -> Iterator[AnyPair]:
        """Every sample in order, read in this process."""

    def batches(self, folder: Path, job: Job) -> Iterator[Batch]:
        """Every sample once, in batches made by workers."""

    def first(self, folder: Path, at: int) -> Pair:
        """The sample at a position, by the fastest way the loader has."""

    def pause(self, folder: Path, job: Job, batches: int) -> tuple[Callable[[], Batch], Batch]:
        """Read this many batches with workers, then stop.

        Returns a function that reopens the data set and resumes with the next batch, and the batch
        that comes next if reading simply goes on.
        """
