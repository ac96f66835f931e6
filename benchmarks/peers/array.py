"""grain: uncompressed ArrayRecord files, one record per group; MapDataset, mp_prefetch, its state.

A record is a single byte string: the length of the JSON in four bytes, the JSON, the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grain
from array_record.python.array_record_module import ArrayRecordWriter

from benchmarks.peers.peer import Batch, Job, Pair, Source, tensors


class Grain:
    def write(self, source: Source, folder: Path) -> None:
        for number, keys in enumerate(source.shards()):
            path = folder / f"data-{number:03d}.array_record"
            # Its documentation recommends group_size:1 for random access.
            writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
            for key in keys:
                text, image = source.pair(key)
                writer.write(len(text).to_bytes(4, "little") + text + image)
            writer.close()

    def samples(self, folder: Path) -> Iterator[Pair]:
        # No read threads, as its documentation advises for data already in memory.
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        rows = grain.MapDataset.source(open_files(folder)).map(pair).to_iter_dataset(options)
        return iter(rows)

    def batches(self, folder: Path, job: Job) -> Iterator[Batch]:
        # Convert to tensors here: arrays are sent through shared memory, tensors would be pickled.
        return map(tensors, dataset(folder, job))

    def first(self, folder: Path, at: int) -> Pair:
        return pair(open_files(folder)[at])

    def pause(self, folder: Path, job: Job, batches: int) -> tuple[Callable[[], Batch], Batch]:
        # Kept and never closed: closing waits for its processes, for up to 25 s. They are idle.
        reading = iter(dataset(folder, job))
        running = [reading]
        for _ in range(batches):
            next(reading)
        state = reading.get_state()
        following: Batch = next(reading)

        def resume() -> Batch:
            again = iter(dataset(folder, job))
            again.set_state(state)
            running.append(again)
            made: Batch = next(again)
            return made

        return resume, following


def open_files(folder: Path) -> grain.sources.ArrayRecordDataSource:
    return grain.sources.ArrayRecordDataSource(sorted(map(str, folder.glob("*.array_record"))))


def pair(record: bytes) -> Pair:
    end = 4 + int.from_bytes(record[:4], "little")
    return record[4:end], record[end:]


def dataset(folder: Path, job: Job) -> grain.IterDataset:
    rows = grain.MapDataset.source(open_files(folder)).map(lambda record: job.make(*pair(record)))
    batched = rows.batch(job.batch, batch_fn=job.collate)
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return batched.to_iter_dataset(options).mp_prefetch(
        grain.MultiprocessingOptions(num_workers=job.workers)
    )
