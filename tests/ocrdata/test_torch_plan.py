"""Batches of a plan for any trainer: the same for all ranks, workers and resumes, or an error."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, prepare_data_loader
from pytorch_lightning.utilities.data import _update_dataloader
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.data import DataLoader, DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from ocrdata.errors import ShardError, UsageError
from ocrdata.planning.plan import Plan, PlanSettings
from ocrdata.storage.fetching import fetcher
from ocrdata.tokens.tokenizer import load_tokenizer
from ocrdata.torch import PlanBatchSampler, PlanLoader, ShardDataset, TokenOptions
from tests.support.far import FarFolder
from tests.support.rowkeys import Keys, keys
from tests.support.rows import write_set
from tests.support.streams import damaged

STEPS, BATCH = 12, 4


class Job:
    """A data set, a plan, and its global batches."""

    def __init__(self, inputs: dict[str, str], **values: Any) -> None:
        self.data = ShardDataset(
            {"squares": inputs["shards"], "sums": inputs["text"]},
            tokens=TokenOptions(load_tokenizer(inputs["tokenizer"]), 64, 2),
        )
        settings = PlanSettings(batch=BATCH, steps=STEPS, seed=1, **{"seq_len": 64, **values})
        self.plan: Plan = self.data.plan(settings, {"squares": 2, "sums": 1})
        names = list(self.data.views)
        self.batches: list[Keys] = [
            [
                [(names[at.source], f"{at.position:09d}") for at in row]
                for row in self.plan.rows(step)
            ]
            for step in range(STEPS)
        ]

    def sampler(self, rank: int = 0, world: int = 1, **values: int) -> PlanBatchSampler:
        return PlanBatchSampler(self.data, self.plan, rank=rank, world_size=world, **values)

    def loader(self, rank: int = 0, world: int = 1, **values: int) -> PlanLoader[Keys]:
        threads, processes = values.pop("threads", 2), values.pop("processes", 0)
        made = self.sampler(rank, world, **values)
        return PlanLoader(made, keys, threads=threads, processes=processes)


PLANS: dict[str, dict[str, Any]] = {
    "one sample a row": {"shuffle": "blocks"},
    "a source for each row": {"mix_by": "sample"},
    "packed": {"pack_window": 16, "row_images": 3},
}


@pytest.fixture(scope="module", params=list(PLANS))
def job(request: pytest.FixtureRequest, inputs: dict[str, str]) -> Job:
    return Job(inputs, **PLANS[request.param])


def joined(parts: list[list[Keys]]) -> list[Keys]:
    """The global batches, from those of each rank."""
    return [[row for part in batch for row in part] for batch in zip(*parts, strict=True)]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_a_loader_gives_the_batches_of_the_plan(job: Job, threads: int) -> None:
    assert list(job.loader(threads=threads)) == job.batches


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataloader_gives_the_batches_of_the_plan(job: Job, workers: int) -> None:
    loader = DataLoader(job.data, batch_sampler=job.sampler(), collate_fn=keys,
                        num_workers=workers)  # fmt: skip
    assert list(loader) == job.batches


def test_worker_processes_give_the_batches_of_the_plan_and_its_errors(
    inputs: dict[str, str], tmp_path: Path
) -> None:
    broken = {"shards": damaged(inputs, tmp_path, 17), "text": inputs["text"]}
    job = Job({**inputs, **broken})
    bad = next(n for n, rows in enumerate(job.batches) if [("squares", f"{17:09d}")] in rows)
    loader, got = job.loader(processes=1), []
    with pytest.raises(ShardError, match=r"squares-000\.tar: sample 000000017: member"):
        got.extend(iter(loader))
    assert got == job.batches[:bad]
    assert loader.step == bad


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 4), (4, 1)])
def test_a_state_goes_on_with_other_ranks_and_workers(job: Job, before: int, after: int) -> None:
    step = 5
    ranks = [job.loader(rank, before) for rank in range(before)]
    first = joined([list(itertools.islice(one, step)) for one in ranks])
    [state, *others] = [json.dumps(one.state_dict()) for one in ranks]
    assert set(others) <= {state}
    resumed = [job.loader(rank, after, threads=0) for rank in range(after)]
    for one in resumed:
        one.load_state_dict(json.loads(state))
    assert first + joined([list(one) for one in resumed]) == job.batches
    rest = [job.sampler(rank, after, start_step=step) for rank in range(after)]
    by_torch = [list(DataLoader(job.data, batch_sampler=one, collate_fn=keys)) for one in rest]
    assert first + joined(by_torch) == job.batches


def test_micro_batches_are_parts_of_a_step(job: Job) -> None:
    loader = job.loader(1, 2, accumulate=2)
    assert len(loader) == len(loader.batches) == 2 * STEPS
    halves = list(loader)
    assert [one + other for one, other in zip(halves[::2], halves[1::2], strict=True)] == [
        batch[2:] for batch in job.batches
    ]
    middle = job.loader(accumulate=4)
    given = list(itertools.islice(middle, 6))
    assert given[4:] == [[row] for row in job.batches[1][:2]]
    again = job.loader(accumulate=4)
    again.load_state_dict(middle.state_dict())
    assert next(iter(again)) == [job.batches[1][2]]
    with pytest.raises(UsageError, match="within step 1, split into 4 micro-batches, not 2"):
        job.loader(accumulate=2).load_state_dict(middle.state_dict())


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("workers", [0, 2])
def test_torchdatas_loader_resumes_within_the_plan(job: Job, workers: int) -> None:
    def loader() -> Any:
        return StatefulDataLoader(job.data, batch_sampler=job.sampler(), collate_fn=keys,
                                  num_workers=workers)  # fmt: skip

    started = loader()
    first = list(itertools.islice(started, 5))
    resumed = loader()
    resumed.load_state_dict(started.state_dict())
    assert first + list(resumed) == job.batches


def test_a_batch_is_given_out_once(job: Job) -> None:
    loader = job.loader()
    one, other = iter(loader), iter(loader)
    assert [next(one), next(one)] == job.batches[:2]
    with pytest.raises(UsageError, match=r"moved to batch 3\b"):
        next(other), next(one)
    assert list(loader) == job.batches[3:]
    with pytest.raises(UsageError, match=f"all {STEPS} steps"):
        iter(loader)
    loader.seek(STEPS - 1)
    assert list(loader) == job.batches[-1:]


def test_states_and_plans_of_something_else_are_refused(job: Job, inputs: dict[str, str]) -> None:
    other = Job(inputs, pack_window=8, row_images=2)
    with pytest.raises(UsageError, match=f"another plan .{other.plan.digest}, not"):
        job.loader().load_state_dict(other.loader().state_dict())
    for wrong in ({}, {"step": 3}, job.loader().state_dict() | {"version": 2}):
        with pytest.raises(UsageError, match="not a loader's state"):
            job.loader().load_state_dict(wrong)
    with pytest.raises(UsageError, match=f"step 99 .* {STEPS} steps"):
        job.loader().load_state_dict(job.loader().state_dict() | {"step": 99})
    squares = ShardDataset({"squares": inputs["shards"]})
    with pytest.raises(UsageError, match=r"plan is of squares \(60 .*sums \(40 .*data set of sq"):
        PlanBatchSampler(squares, job.plan)


@pytest.mark.parametrize(
    ("values", "facts"),
    [
        ({"rank": 0, "world_size": 3}, r"\b4 rows.*\b3 ranks"),
        ({"rank": 2, "world_size": 2}, "rank 2 of 2"),
        ({"world_size": 2}, "both rank and world_size"),
        ({"rank": 0, "world_size": 2, "accumulate": 4}, "accumulate 4: 2 rows"),
        ({"accumulate": 0}, "accumulate 0"),
        ({"start_step": 13}, "start_step 13: the plan has 12 steps"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(job: Job, values: dict[str, int], facts: str) -> None:
    with pytest.raises(UsageError, match=facts):
        PlanBatchSampler(job.data, job.plan, **values)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="step 13: the plan has 12 steps"):
        job.loader().seek(13)
    with pytest.raises(UsageError, match=r"threads \(-1\)"):
        job.loader(threads=-1)


def test_shards_at_urls_give_the_batches_of_local_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCR_SHARDS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "shards"
    folder.mkdir()
    write_set(folder, "n", [40, 17, 9], ("PNG", "JPEG"))
    settings = PlanSettings(batch=4, steps=STEPS, seed=1, shuffle="blocks")
    near = ShardDataset(str(folder / "n.json"))
    wanted = list(PlanLoader(PlanBatchSampler(near, near.plan(settings)), keys))
    with FarFolder(folder) as server:
        far = ShardDataset(f"{server.url}/n.json")
        sampler = PlanBatchSampler(far, far.plan(settings))
        assert far.plan(settings).digest == near.plan(settings).digest
        assert list(PlanLoader(sampler, keys)) == wanted
        assert fetcher().held == 0
        stopped = iter(PlanLoader(PlanBatchSampler(far, far.plan(settings)), keys))
        assert next(stopped) == wanted[0]
        stopped.close()
        assert fetcher().held == 0
        assert list(DataLoader(far, batch_sampler=sampler, collate_fn=keys)) == wanted
        forked = DataLoader(far, batch_sampler=sampler, collate_fn=keys, num_workers=1,
                            multiprocessing_context="fork")  # fmt: skip
        with pytest.raises(UsageError, match=r"forked process .*context='forkserver'"):
            next(iter(forked))


@pytest.fixture
def second_of_two() -> Iterator[None]:
    """This process as rank 1 of 2 of torch.distributed."""
    torch.distributed.init_process_group("fake", rank=1, world_size=2, store=FakeStore())
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("second_of_two")
def test_ranks_are_asked_of_torch_when_iteration_begins(job: Job) -> None:
    loader = PlanLoader(PlanBatchSampler(job.data, job.plan), keys)
    assert list(loader) == [batch[2:] for batch in job.batches]
    assert list(job.loader(0, 1)) == job.batches  # two ranks that share a model
    with pytest.raises(UsageError, match="world_size 4 does not fit 2 running processes"):
        job.sampler(3, 4)


def test_ranks_are_asked_of_torchrun(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    made = PlanBatchSampler(job.data, job.plan)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert list(PlanLoader(made, keys)) == [batch[3:] for batch in job.batches]
    monkeypatch.setenv("WORLD_SIZE", "four")
    with pytest.raises(UsageError, match=r"WORLD_SIZE .*four"):
        iter(made)


@pytest.mark.usefixtures("second_of_two")
def test_nobody_shares_out_the_batches_of_a_rank_again(job: Job) -> None:
    sampler = PlanBatchSampler(job.data, job.plan)
    loader = DataLoader(job.data, batch_sampler=sampler, collate_fn=keys)
    refused = pytest.raises(UsageError, match=r"prepare.*use_distributed_sampler=False.*PlanL")
    with refused:
        BatchSamplerShard(sampler, 2, 1)
    for split in (False, True):
        with refused:
            prepare_data_loader(loader, num_processes=2, process_index=1, put_on_device=False,
                                split_batches=split)  # fmt: skip
    with refused:
        _update_dataloader(loader, DistributedSampler(job.data, 2, 1))
    with refused:  # also where the sampler was told that it is alone
        BatchSamplerShard(job.sampler(0, 1), 2, 1)


def test_a_single_process_may_prepare_its_loader(job: Job) -> None:
    loader = DataLoader(job.data, batch_sampler=job.sampler(), collate_fn=keys)
    prepared = prepare_data_loader(loader, num_processes=1, process_index=0, put_on_device=False)
    assert list(prepared) == job.batches
