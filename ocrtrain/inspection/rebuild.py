"""The batch of any step, rebuilt from a run folder: no GPU, no weights.

Owner of what a batch is rebuilt from (`config.json`, `plan.json`, `tokenizer.json`, `bad.jsonl` and
the shards, wherever they lie by now) and of the verdict whether it is the one that was trained on
(`batches.jsonl`). It takes no lock and changes nothing in the run, which may be going on meanwhile.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ocrdata.errors import OcrError, SpecError, TrainError, UsageError
from ocrdata.planning.plan import Plan, SampleIndex
from ocrdata.reading.slices import split_slice
from ocrdata.reading.view import Shards
from ocrdata.tokens.tokenizer import Tokenizer, load_tokenizer
from ocrtrain.data.batch import Batch, Segment
from ocrtrain.data.run_plan import check_same, plan_rows
from ocrtrain.data.skipped import SkippedSamples
from ocrtrain.data.sources import Sources, open_training
from ocrtrain.data.stream import Stream, rank_rows
from ocrtrain.run import batch_log
from ocrtrain.settings.config import Config, differences, from_json
from ocrtrain.state import checkpoint
from ocrtrain.state.checkpoint import Checkpoint
from ocrtrain.state.run_files import read_sealed

_NO_MATTER = ("threads:", "transformers:")
"""Versions in a checkpoint that no batch depends on."""


@dataclass(frozen=True)
class RebuildRequest:
    """Which batch. `shards` and `text` say where the run's shards lie by now, where they moved;
    `world` 0 asks for the rows of all ranks."""

    run: Path
    step: int
    shards: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    rank: int = 0
    world: int = 0


class RebuiltSample(NamedTuple):
    """A sample of a batch: the number of its row in the global batch, where it lies in it, the
    epoch of its source, and width and height of its images in px, as they were before loading."""

    row: int
    segment: Segment
    epoch: int
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class RebuiltBatch:
    """A batch as it was trained on, or will be.

    `batch` holds the rows asked for, which are `rows` of the global batch; `identity` is the global
    batch's, and `recorded` what training wrote down for it ("" where it has not come so far).
    `compared` is the step whose identity was compared: this one, else the last one recorded, else
    -1. `problem` says what speaks against the batch; None where nothing does.
    """

    asked: RebuildRequest
    config: Config
    tokenizer: Tokenizer
    steps: int
    batch: Batch
    rows: range
    samples: tuple[RebuiltSample, ...]
    identity: str
    recorded: str
    compared: int
    problem: TrainError | None

    @property
    def verdict(self) -> str:
        """The identity and how it stands to the record, in one line."""
        whole = " of the whole batch" if self.asked.world else ""
        if self.problem is not None:
            return f"identity {self.identity}{whole} IS NOT KNOWN TO BE THE ONE TRAINED ON"
        if self.recorded:
            return f"identity {self.identity}{whole} equals the one recorded"
        last = f"; step {self.compared}, the last it has, is the same" if self.compared >= 0 else ""
        return (
            f"identity {self.identity}{whole}: training has not finished step {self.asked.step} "
            f"yet{last}"
        )

    @property
    def title(self) -> str:
        """'step 12 of 400', with the rank where one was asked for."""
        asked = self.asked
        rank = f", rank {asked.rank} of {asked.world}" if asked.world else ""
        return f"step {asked.step} of {self.steps:,}{rank}"


@dataclass(frozen=True)
class _OpenedRun:
    """A run as its folder has it."""

    folder: Path
    config: Config
    tokenizer: Tokenizer
    sources: Sources
    plan: Plan

    def batch(self, step: int, *, skip: bool) -> Batch:
        """The global batch of a step with the holes that are on record; with `skip` more of them,
        where samples cannot be used."""
        bad = SkippedSamples(skip=skip)
        bad.replay(self.folder)
        stream = Stream(self.plan, self.sources, self.config, tokenizer=self.tokenizer, bad=bad)
        return stream.batch(step)


def rebuild(asked: RebuildRequest) -> RebuiltBatch:
    """Rebuild a batch and compare it with what was recorded.

    Raises UsageError for a step or rank that is not there or shards that are not found, TrainError
    for a run whose files are missing, damaged or not each other's, and what reading shards raises.
    """
    run = _open(asked)
    rows = range(run.plan.batch)
    if asked.world:
        rows = rank_rows(run.plan.batch, asked.rank, asked.world)
    # Listed before the record is read: a checkpoint is never ahead of it.
    saved = checkpoint.complete_checkpoints(asked.run)
    recorded = batch_log.identity_at(asked.run, asked.step)
    # What training has read without a complaint must be read again; what it has still to read may
    # be skipped by it.
    whole = run.batch(asked.step, skip=run.config.bad_samples == "skip" and not recorded)
    newest = None if recorded else batch_log.newest(asked.run)
    if recorded:
        problem = _compare(run, asked.step, whole.identity, recorded)
    elif newest is not None:  # then at least what was trained on last must be the same
        step, identity = newest
        problem = _compare(run, step, run.batch(step, skip=False).identity, identity)
    else:
        problem = None
    batch = whole.split(len(rows))[rows.start // len(rows)]
    return RebuiltBatch(
        asked=asked,
        config=run.config,
        tokenizer=run.tokenizer,
        steps=run.plan.steps,
        batch=batch,
        rows=rows,
        samples=_samples(run, batch, rows),
        identity=whole.identity,
        recorded=recorded,
        compared=asked.step if recorded else newest[0] if newest else -1,
        problem=problem or (None if recorded else _lost(run, asked.step, saved)),
    )


def _open(asked: RebuildRequest) -> _OpenedRun:
    """Read the run's files and open its shards."""
    if (asked.run / checkpoint.COMPLETE).is_file():
        raise UsageError(f"{asked.run} is a checkpoint; name its run: {asked.run.parent.parent}")
    began = _config(asked.run)
    config = _with_places(began, asked)
    tokenizer = _tokenizer(asked.run)
    sources = _sources(config, began)
    plan = plan_rows(config, sources, tokenizer)
    remedy = "say where those lie by --shards and --text"
    check_same(asked.run / "plan.json", plan.to_json(), remedy=remedy)
    if not 0 <= asked.step < plan.steps:
        raise UsageError(
            f"--step {asked.step}: the plan of {asked.run} has the steps 0 to {plan.steps - 1}"
        )
    return _OpenedRun(asked.run, config, tokenizer, sources, plan)


def _config(run: Path) -> Config:
    """The config a run was started with."""
    path = run / "config.json"
    if not path.exists():
        raise UsageError(f"--run {run} holds no run: there is no {path}")
    return from_json(read_sealed(path))


def _with_places(config: Config, asked: RebuildRequest) -> Config:
    """A run's config with its shards where they are said to lie."""
    if asked.text and not config.text:
        raise UsageError(f"--text: the run in {asked.run} has no text-only shards")
    return replace(
        config,
        shards=_moved(asked.shards, config.shards),
        text=_moved(asked.text, config.text),
    )


def _moved(now: Sequence[str], then: tuple[str, ...]) -> tuple[str, ...]:
    """A spec that says where shards lie now; the run's own slice holds where it has none."""
    if not now:
        return then
    *others, last = now
    taken = split_slice(then[-1])[1]
    if taken is not None and split_slice(last)[1] is None:
        last = f"{last}[{taken}]"
    return (*others, last)


def _tokenizer(run: Path) -> Tokenizer:
    """The run's tokenizer. Raises TrainError where its file is not what the run has written."""
    path = run / "tokenizer.json"
    remedy = "every checkpoint of the run has a copy to put there"
    if not path.exists():
        raise TrainError(f"{path}: the file is missing; {remedy}")
    try:
        return load_tokenizer(path)
    except OcrError as exc:
        raise TrainError(f"{exc}; {remedy}") from exc


def _sources(config: Config, began: Config) -> Sources:
    """The shards trained on. One that is not found may have been named from another folder by the
    config the run began with."""
    try:
        return open_training(config)
    except SpecError as exc:
        named = shlex.join([*began.shards, *began.text])
        raise UsageError(
            f"{exc}; the run was started with {named}: go to the folder that was named from, or "
            "say where they lie now by --shards and --text"
        ) from exc


def _samples(run: _OpenedRun, batch: Batch, rows: range) -> tuple[RebuiltSample, ...]:
    """What the plan and the indexes know of each segment, beside the batch."""
    views = list(run.sources.train.values())
    found = []
    planned = run.plan.rows(batch.step, rows)
    for number, row, places in zip(rows, batch.rows, planned, strict=True):
        for segment, place in zip(row.segments, places, strict=True):
            found.append(RebuiltSample(number, segment, place.epoch, _sizes(views, place, segment)))
    return tuple(found)


def _sizes(
    views: list[Shards], place: SampleIndex, segment: Segment
) -> tuple[tuple[int, int], ...]:
    """Width and height of the images that are left of a sample, from the index."""
    images = views[place.source].row(place.position).images[: segment.images]
    return tuple((image.width, image.height) for image in images)


def _compare(run: _OpenedRun, step: int, identity: str, recorded: str) -> TrainError | None:
    """What there is to say where a batch is not the one recorded for its step."""
    if identity == recorded:
        return None
    return TrainError(
        f"{run.folder / batch_log.FILE}: step {step} was trained on the batch with identity "
        f"{recorded}, what is rebuilt has {identity}; {_reason(run)}"
    )


def _lost(run: _OpenedRun, step: int, saved: Sequence[Path]) -> TrainError | None:
    """What there is to say where the record of a step should be, and is not: `saved` are the
    run's checkpoints."""
    path = run.folder / batch_log.FILE
    remedy = "bring it back, or show the batch all the same by --anyway"
    if not path.exists():
        return TrainError(
            f"{path}: the file is missing, nothing says what step {step} was trained on; {remedy}"
        )
    later = [folder for folder in saved if _step(folder) > step]
    if later:
        return TrainError(
            f"{path}: it ends before step {step}, though {later[0]} is of a later one; {remedy}"
        )
    return None


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def _reason(run: _OpenedRun) -> str:
    """What can have made the batch another, by the newest checkpoint."""
    found = checkpoint.complete_checkpoints(run.folder)
    if not found:
        return "no checkpoint says under which library versions it was trained"
    folder = found[-1]
    try:
        saved = Checkpoint.open(folder)
        # A checkpoint holds the steps that there are, config.json those that were asked for.
        changed = differences(replace(saved.config, steps=run.config.steps), run.config)
        if saved.tokenizer().fingerprint != run.tokenizer.fingerprint:
            changed.append("the tokenizer is another")
        changed += [text for text in saved.changed_versions() if not text.startswith(_NO_MATTER)]
    except (OcrError, OSError, json.JSONDecodeError) as exc:
        return f"{folder}, which could tell why, cannot be read: {exc}"
    if not changed:
        return f"settings, tokenizer and library versions are those of {folder}"
    return f"differing from {folder}: {'; '.join(changed)}"
