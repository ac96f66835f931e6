"""This project: indexed tar shards, verified digests, threads as workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.peers.peer import AnyPair, Batch, Job, Pair, Source, tensors
from ocrdata.reading.prefetch import Prefetcher, whole
from ocrdata.reading.shard_set import Members
from ocrdata.reading.view import Shards, open_shards
from ocrdata.shards.manifest import Manifest, write_manifest
from ocrdata.shards.names import make_key
from ocrdata.shards.writer import ShardWriter

MANIFEST = "data.json"


class Ours:
    def write(self, source: Source, folder: Path) -> None:
        shards = []
        for number, keys in enumerate(source.shards()):
            with ShardWriter(folder / f"data-{number:03d}.tar") as writer:
                for key in keys:
                    writer.write(make_key(key), source.sample(key))
            shards.append(writer.close())
        write_manifest(folder / MANIFEST, Manifest("data", tuple(shards)))

    def samples(self, folder: Path) -> Iterator[AnyPair]:
        return map(pair, open_shards(str(folder / MANIFEST)).iter_members())

    def batches(self, folder: Path, job: Job) -> Iterator[Batch]:
        return loader(open_shards(str(folder / MANIFEST)), job, 0)

    def first(self, folder: Path, at: int) -> Pair:
        return pair(open_shards(str(folder / MANIFEST)).members(at))

    def pause(self, folder: Path, job: Job, batches: int) -> tuple[Callable[[], Batch], Batch]:
        with loader(open_shards(str(folder / MANIFEST)), job, 0) as reading:
            for _ in range(batches):
                next(reading)
            following = next(reading)

        def resume() -> Batch:
            with loader(open_shards(str(folder / MANIFEST)), job, batches) as reading:
                return next(reading)

        return resume, following


class Views(Ours):
    """Raw reading without the last copy: read-only views, verified like copies."""

    def samples(self, folder: Path) -> Iterator[AnyPair]:
        return map(views, open_shards(str(folder / MANIFEST)).iter_views())


def views(members: dict[str, memoryview[int]]) -> AnyPair:
    """The same as `pair`, for views."""
    data = tuple(members.values())
    return data[0], data[1] if len(data) > 1 else b""


def pair(members: Members) -> Pair:
    """A sample's first member, the JSON, and its second, the image."""
    data = tuple(members.values())
    return data[0], data[1] if len(data) > 1 else b""


def loader(shards: Shards, job: Job, start: int) -> Prefetcher[Batch]:
    """Step n makes the n-th batch of consecutive samples; the state is the number of the step."""

    def make(step: int) -> Batch:
        rows = shards[step * job.batch : (step + 1) * job.batch].iter_members()
        return tensors(job.collate([job.make(*pair(members)) for members in rows]))

    return Prefetcher(whole(make), start, stop=-(-len(shards) // job.batch), workers=job.workers)
