"""The baseline without a library: one file per member, and torch's DataLoader."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from torch.utils.data import DataLoader, Dataset, Subset

from benchmarks.peers.peer import Batch, Job, Pair, Source, tensors


class Files(Dataset[Pair]):
    """`KEY.json` and `KEY.image`, 1,024 samples per folder."""

    def __init__(self, folder: Path) -> None:
        self.texts = sorted(map(str, folder.rglob("*.json")))
        self.images = {name[:-6] for name in map(str, folder.rglob("*.image"))}

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, at: int) -> Pair:
        name = self.texts[at]
        with open(name, "rb") as file:
            text = file.read()
        if name[:-5] not in self.images:
            return text, b""
        with open(name[:-5] + ".image", "rb") as file:
            return text, file.read()


class Plain:
    def write(self, source: Source, folder: Path) -> None:
        for number, keys in enumerate(source.shards()):
            into = folder / f"{number:03d}"
            into.mkdir()
            for key in keys:
                text, image = source.pair(key)
                (into / f"{key:09d}.json").write_bytes(text)
                if image:
                    (into / f"{key:09d}.image").write_bytes(image)

    def samples(self, folder: Path) -> Iterator[Pair]:
        files = Files(folder)
        return (files[at] for at in range(len(files)))

    def batches(self, folder: Path, job: Job) -> Iterator[Batch]:
        return self._from(folder, job, 0)

    def first(self, folder: Path, at: int) -> Pair:
        return Files(folder)[at]

    def pause(self, folder: Path, job: Job, batches: int) -> tuple[Callable[[], Batch], Batch]:
        following = next(itertools.islice(self.batches(folder, job), batches, None))
        return lambda: next(self._from(folder, job, batches * job.batch)), following

    def _from(self, folder: Path, job: Job, at: int) -> Iterator[Batch]:
        def collate(pairs: list[Pair]) -> Batch:
            return tensors(job.collate([job.make(text, image) for text, image in pairs]))

        files = Files(folder)
        return iter(
            DataLoader(
                Subset(files, range(at, len(files))),
                batch_size=job.batch,
                num_workers=job.workers,
                collate_fn=collate,
            )
        )
