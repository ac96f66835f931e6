"""What the benchmark asks of a loader, and the samples it gives to each.

A sample is the same for all: the bytes of its JSON (made by `Sample.to_json` while writing, so that
the time to make them counts for all alike) and the original bytes of its image, `b""` for a chat.
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
"""JSON, image."""

AnyPair = tuple[bytes | memoryview, bytes | memoryview]

Batch = Any
"""A list of what was made, or one stacked array or tensor of it."""


@dataclass(frozen=True)
class Source:
    """`count` samples: those there are, again and again under other keys."""

    samples: list[Sample]
    count: int
    shard: int = SHARD_SAMPLES

    def sample(self, key: int) -> Sample:
        return self.samples[key % len(self.samples)]

    def pair(self, key: int) -> Pair:
        sample = self.sample(key)
        return sample.to_json(), sample.images[0] if sample.images else b""

    def shards(self) -> list[range]:
        """The keys of each shard, for formats that are written shard by shard."""
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
    """Reading with workers: `make` turns a sample into what is wanted, in the worker; `collate`
    makes one batch of `batch` of those. Pixels are arrays so far, `tensors` is each loader's."""

    workers: int
    batch: int
    make: Callable[[bytes, bytes], Any]
    collate: Callable[[list[Any]], Batch]


def tensors(batch: Batch) -> Batch:
    """A batch whose arrays are torch's, without a copy; JSON and image bytes stay as they are."""
    if isinstance(batch, np.ndarray):
        return as_tensor(batch)
    return [as_tensor(row) if isinstance(row, np.ndarray) else row for row in batch]


def as_tensor(array: npt.NDArray[np.uint8]) -> torch.Tensor:
    # Not at the top: raw reading needs no torch, and its memory is measured.
    import torch

    return torch.from_numpy(array)


class Peer(Protocol):
    """A loader, used as its documentation recommends. Every method opens the data set anew."""

    def write(self, source: Source, folder: Path) -> None:
        """All samples, in its own format, in one go."""

    def samples(self, folder: Path) -> Iterator[AnyPair]:
        """Every sample in order, in this process."""

    def batches(self, folder: Path, job: Job) -> Iterator[Batch]:
        """Every sample once, in batches made by workers."""

    def first(self, folder: Path, at: int) -> Pair:
        """The sample at a position, by the fastest way there is."""

    def pause(self, folder: Path, job: Job, batches: int) -> tuple[Callable[[], Batch], Batch]:
        """Read so many batches with workers and stop.

        Returns what opens the data set anew and gives the next batch, and the batch that came
        next without a stop.
        """
