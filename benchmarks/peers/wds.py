"""webdataset: TarWriter, WebDataset, WebLoader. It saves no state, so resuming means replaying."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import webdataset

from benchmarks.peers.peer import Batch, Job, Pair, Source, tensors
from ocrdata.images.decode import sniff
from ocrdata.shards.names import make_key

# It leaves tars open for the garbage collector to close.
warnings.simplefilter("ignore", ResourceWarning)


class Webdataset:
    def write(self, source: Source, folder: Path) -> None:
        for number, keys in enumerate(source.shards()):
            with webdataset.TarWriter(str(folder / f"data-{number:03d}.tar")) as writer:
                for key in keys:
                    text, image = source.pair(key)
                    sample = {"__key__": make_key(key), "json": text}
                    if image:
                        sample[sniff(image)] = image
                    writer.write(sample)

    def samples(self, folder: Path) -> Iterator[Pair]:
        return map(pair, dataset(folder))

    def batches(self, folder: Path, job: Job) -> Iterator[Batch]:
        batched = dataset(folder).map(lambda sample: job.make(*pair(sample)))
        batched = batched.batched(job.batch, collation_fn=lambda rows: tensors(job.collate(rows)))
        return iter(webdataset.WebLoader(batched, batch_size=None, num_workers=job.workers))

    def first(self, folder: Path, at: int) -> Pair:
        return next(itertools.islice(self.samples(folder), at, None))

    def pause(self, folder: Path, job: Job, batches: int) -> tuple[Callable[[], Batch], Batch]:
        def resume() -> Batch:
            return next(itertools.islice(self.batches(folder, job), batches, None))

        return resume, resume()


def dataset(folder: Path) -> webdataset.WebDataset:
    files = sorted(map(str, folder.glob("*.tar")))
    return webdataset.WebDataset(files, shardshuffle=False)


def pair(sample: dict[str, bytes]) -> Pair:
    image = next((sample[name] for name in ("png", "jpg", "gif") if name in sample), b"")
    return sample["json"], image
