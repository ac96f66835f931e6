"""litdata: optimize() into chunks of 64 MB, StreamingDataset, StreamingDataLoader with its state.

Before it is imported, its caches must be set to a folder of our own (DATA_OPTIMIZER_CACHE_FOLDER
and DATA_OPTIMIZER_DATA_CACHE_FOLDER; `benchmarks.peers.run` does it), because it deletes the
defaults.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from litdata import StreamingDataLoader, StreamingDataset, optimize

from benchmarks.peers.peer import Batch, Job, Pair, Source, tensors


class Litdata:
    def write(self, source: Source, folder: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            optimize(
                fn=partial(row, source),
                inputs=list(range(source.count)),
                output_dir=str(folder),
                chunk_bytes="64MB",
                num_workers=2,
                start_method="fork",
                keep_data_ordered=True,
                verbose=False,
            )

    def samples(self, folder: Path) -> Iterator[Pair]:
        return ((row["json"], row["image"]) for row in StreamingDataset(str(folder)))

    def batches(self, folder: Path, job: Job) -> Iterator[Batch]:
        return iter(loader(folder, job))

    def first(self, folder: Path, at: int) -> Pair:
        row = StreamingDataset(str(folder))[at]
        return row["json"], row["image"]

    def pause(self, folder: Path, job: Job, batches: int) -> tuple[Callable[[], Batch], Batch]:
        before = loader(folder, job)
        reading = iter(before)
        for _ in range(batches):
            next(reading)
        state = before.state_dict()
        following: Batch = next(reading)
        del reading, before

        def resume() -> Batch:
            again = loader(folder, job)
            again.load_state_dict(state)
            made: Batch = next(iter(again))
            return made

        return resume, following


def row(source: Source, key: int) -> dict[str, bytes]:
    text, image = source.pair(key)
    return {"json": text, "image": image}


def loader(folder: Path, job: Job) -> StreamingDataLoader:
    def collate(rows: list[dict[str, bytes]]) -> Batch:
        return tensors(job.collate([job.make(row["json"], row["image"]) for row in rows]))

    return StreamingDataLoader(
        StreamingDataset(str(folder), shuffle=False),
        batch_size=job.batch,
        num_workers=job.workers,
        collate_fn=collate,
    )
