"""megatron-energon: tars indexed like `energon prepare` does, CrudeWebdataset, savable loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from megatron.energon import (
    BaseWebdatasetFactory,
    Cooker,
    DefaultTaskEncoder,
    Sample,
    SavableDataset,
    WorkerConfig,
    basic_sample_keys,
    edataclass,
    get_loader,
    get_savable_loader,
    get_train_dataset,
    stateless,
)
from megatron.energon.epathlib import EPath
from megatron.energon.flavors.webdataset.itar_reader import SqliteITarEntryReader

from benchmarks.peers.peer import Batch, Job, Pair, Source, tensors
from benchmarks.peers.wds import Webdataset, pair
from ocrdata.shards.names import make_key

CRUDE = "__module__: megatron.energon\n__class__: CrudeWebdataset\n"


@edataclass
class Made(Sample):
    made: Any


class Encoder(DefaultTaskEncoder):  # type: ignore[misc]  # energon has no types
    """Passes members on as bytes; the job converts and collates them."""

    decoder = None

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job
        self.cookers = [Cooker(self.cook)]

    @stateless
    def cook(self, sample: dict[str, Any]) -> Made:
        return Made(**basic_sample_keys(sample), made=self.job.make(*pair(sample)))

    def batch(self, samples: list[Made]) -> Batch:
        return tensors(self.job.collate([sample.made for sample in samples]))


class Energon:
    def write(self, source: Source, folder: Path) -> None:
        Webdataset().write(source, folder)
        # The function behind `energon prepare`; the command itself would import torch again.
        BaseWebdatasetFactory.prepare_dataset(
            folder,
            sorted(path.name for path in folder.glob("*.tar")),
            split_parts_ratio=[("train", 1.0), ("val", 0.0), ("test", 0.0)],
            shuffle_seed=None,
            workers=2,
        )
        (folder / ".nv-meta" / "dataset.yaml").write_text(CRUDE)

    def samples(self, folder: Path) -> Iterator[Pair]:
        for (pair_,) in get_loader(dataset(folder, Job(0, 1, both, list))):
            yield tuple(pair_)

    def batches(self, folder: Path, job: Job) -> Iterator[Batch]:
        return iter(get_loader(dataset(folder, job)))

    def first(self, folder: Path, at: int) -> Pair:
        # By key through its SQLite index, as it reads media of other data sets.
        found: Pair = pair(SqliteITarEntryReader(EPath(folder))[make_key(at)])
        return found

    def pause(self, folder: Path, job: Job, batches: int) -> tuple[Callable[[], Batch], Batch]:
        before = get_savable_loader(dataset(folder, job))
        reading = iter(before)
        for _ in range(batches):
            next(reading)
        state = before.save_state_rank()
        following: Batch = next(reading)
        running: list[object] = [reading, before]

        def resume() -> Batch:
            again = get_savable_loader(dataset(folder, job))
            again.restore_state_rank(state)
            running.append(again)
            made: Batch = next(iter(again))
            return made

        return resume, following


def both(text: bytes, image: bytes) -> Pair:
    return text, image


def dataset(folder: Path, job: Job) -> SavableDataset[Any]:
    return get_train_dataset(
        folder,
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=job.workers),
        batch_size=job.batch,
        shuffle_buffer_size=None,
        max_samples_per_sequence=None,
        shuffle_over_epochs_multiplier=None,
        parallel_shard_iters=1,
        repeat=False,
        task_encoder=Encoder(job),
    )
