"""Rebuilds the batch of any step of a run, without a GPU and without weights.

In: `config.json`, `plan.json`, `tokenizer.json` and `bad.jsonl` of the run folder, and the shards,
which may have moved. Out: the batch and a verdict, by comparing its identity with the one recorded
in `batches.jsonl`. Takes no lock and changes nothing, so training may continue meanwhile.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ocrdata.errors import OcrError, SpecError, TrainError, UsageError
from ocrdata.planning.plan import Plan, SampleIndex
from ocrdata.planning.ranks import rank_rows
from ocrdata.reading.slices import split_slice
from ocrdata.reading.view import Shards
from ocrdata.tokens.tokenizer import Tokenizer, load_tokenizer
from ocrtrain.data import plan_file
from ocrtrain.data.batch import Batch
from ocrtrain.data.batch_rows import Segment
from ocrtrain.data.plan_file import part_at, read_parts
from ocrtrain.data.run_plan import check_same, plan_rows
from ocrtrain.data.skipped import SkippedSamples
from ocrtrain.data.sources import Sources, open_training
from ocrtrain.data.stream import Stream
from ocrtrain.run import batch_log
from ocrtrain.settings.config import Config
from ocrtrain.settings.fields import flag_name
from ocrtrain.settings.named_sources import parse_specs, with_spec
from ocrtrain.settings.saved_config import compare, from_json
from ocrtrain.state import checkpoint
from ocrtrain.state.checkpoint import Checkpoint
from ocrtrain.state.run_files import read_sealed

_IRRELEVANT_VERSIONS = ("threads:", "transformers:")
"""Entries of a checkpoint's versions that no batch depends on."""

_FLAGS = {False: "--shards and --text", True: "--source NAME=SPEC"}
"""The flags that give the new paths of shards, by whether the run was started with --source."""


@dataclass(frozen=True)
class RebuildRequest:
    """Which batch to rebuild. `shards` and `text`, or `source` (as NAME=SPEC), give the new paths
    of shards that have moved; `world` 0 asks for the rows of all ranks."""

    run: Path
    step: int
    shards: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    rank: int = 0
    world: int = 0


class RebuiltSample(NamedTuple):
    """A sample of a batch: its row in the global batch, its segment of that row, the epoch of its
    source, and the original width and height of its images in px."""

    row: int
    segment: Segment
    epoch: int
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class RebuiltBatch:
    """A batch as it was, or will be, trained on.

    `batch` holds the requested rows, which are `rows` of the global batch. `identity` is that of
    the global batch and `recorded` the one training logged ("" if it has not reached the step).
    `compared` is the step whose identities were compared: this one, else the last one recorded,
    else -1. `problem` is why the batch may differ from the one trained on, or None.
    """

    request: RebuildRequest
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
        """The identity and how it compares with the recorded one, in one line."""
        scope = " of the global batch" if self.request.world else ""
        identity = f"identity {self.identity}{scope}"
        if self.problem is not None:
            return f"{identity}: NOT VERIFIED AS THE BATCH TRAINED ON"
        if self.recorded:
            return f"{identity} matches the recorded one"
        last = f"; step {self.compared}, the last recorded, matches" if self.compared >= 0 else ""
        return f"{identity}: training has not finished step {self.request.step} yet{last}"

    @property
    def title(self) -> str:
        """'step 12 of 400', or 'step 12 of 400, rank 0 of 2' if a rank was requested."""
        request = self.request
        rank = f", rank {request.rank} of {request.world}" if request.world else ""
        return f"step {request.step} of {self.steps:,}{rank}"


@dataclass(frozen=True)
class _OpenedRun:
    """What a run folder holds, with its shards opened and its plan recomputed."""

    folder: Path
    config: Config
    tokenizer: Tokenizer
    sources: Sources
    plan: Plan

    def batch(self, step: int, *, skip: bool) -> Batch:
        """The global batch of a step, in which samples recorded as skipped are masked. With
        `skip`, others that cannot be used are masked too; otherwise they raise."""
        bad = SkippedSamples(skip=skip)
        bad.replay(self.folder)
        stream = Stream(self.plan, self.sources, self.config, tokenizer=self.tokenizer, skipped=bad)
        return stream.batch(step)


def rebuild(request: RebuildRequest) -> RebuiltBatch:
    """Rebuilds a batch and compares its identity with the recorded one.

    Raises UsageError if the step or rank is out of range or shards are not found, TrainError if
    files of the run are missing, corrupted or inconsistent, and whatever reading shards raises.
    """
    run = _open(request)
    rows = range(run.plan.batch)
    if request.world:
        rows = rank_rows(run.plan.batch, request.rank, request.world)
    # Listed before the log is read, since training logs a batch before it saves a checkpoint.
    saved = checkpoint.complete_checkpoints(request.run)
    recorded = batch_log.identity_at(request.run, request.step)
    # Samples of a recorded batch were readable and must still be; in a step to come, training may
    # skip those that are not.
    whole = run.batch(request.step, skip=run.config.bad_samples == "skip" and not recorded)
    newest = None if recorded else batch_log.newest(request.run)
    if recorded:
        problem = _compare(run, request.step, whole.identity, recorded)
    elif newest is not None:  # verify the last batch that was recorded instead
        step, identity = newest
        other = run if step >= run.plan.first_step else _open(replace(request, step=step))
        problem = _compare(other, step, other.batch(step, skip=False).identity, identity)
    else:
        problem = None
    batch = whole.split(len(rows))[rows.start // len(rows)]
    return RebuiltBatch(
        request=request,
        config=run.config,
        tokenizer=run.tokenizer,
        steps=run.plan.first_step + run.plan.steps,
        batch=batch,
        rows=rows,
        samples=_samples(run, batch, rows),
        identity=whole.identity,
        recorded=recorded,
        compared=request.step if recorded else newest[0] if newest else -1,
        problem=problem or (None if recorded else _missing_record(run, request.step, saved)),
    )


def _open(request: RebuildRequest) -> _OpenedRun:
    """Reads the run's files, opens its shards and checks that its plan can be reproduced."""
    if (request.run / checkpoint.COMPLETE).is_file():
        raise UsageError(
            f"--run {request.run} is a checkpoint, not a run folder; use --run "
            f"{request.run.parent.parent}"
        )
    original, path = _config(request.run), request.run / plan_file.FILE
    part = part_at(read_parts(path), request.step)
    if part.config is not None:  # a part that is over has the settings of its time
        original = from_json(dict(part.config))
    config = _with_moved_shards(original, request)
    tokenizer = _tokenizer(request.run)
    sources = _sources(config, original)
    plan = plan_rows(config, sources, tokenizer, started=part)
    remedy = f"pass the paths of the run's own shards with {_FLAGS[bool(config.source)]}"
    # The number of steps is that of the config: a run may be made longer.
    recipe = {key: value for key, value in plan.to_json().items() if key != "steps"}
    check_same(path, part.recipe, recipe, remedy=remedy)
    steps = part.start + plan.steps
    if not 0 <= request.step < steps:
        raise UsageError(
            f"--step {request.step} is out of range: {request.run} has steps 0 to {steps - 1}"
        )
    return _OpenedRun(request.run, config, tokenizer, sources, plan)


def _config(run: Path) -> Config:
    """The config the run was started with."""
    path = run / "config.json"
    if not path.exists():
        raise UsageError(f"--run {run} is not a run folder: {path} is missing")
    return from_json(read_sealed(path))


def _with_moved_shards(config: Config, request: RebuildRequest) -> Config:
    """The run's config with the new paths of its shards, and without its cache."""
    for name in ("shards", "text", "source"):
        if getattr(request, name) and not getattr(config, name):
            raise UsageError(f"--{name}: the run {request.run} was not started with this flag")
    moved = parse_specs("--source", request.source, config.named_sources)
    return replace(
        config.without_cache(),
        shards=_moved(request.shards, config.shards),
        text=_moved(request.text, config.text),
        source=tuple(
            with_spec(text, *_moved([moved[source.name]], (source.spec,)))
            if source.name in moved
            else text
            for text, source in zip(config.source, config.named_sources, strict=True)
        ),
    )


def _moved(new: Sequence[str], original: tuple[str, ...]) -> tuple[str, ...]:
    """The new specs, or the original ones if there are none. A missing slice is that of the
    original spec in its place, or of the last one if there are not equally many."""
    if not new:
        return original
    if len(new) == len(original):
        return tuple(_with_slice(spec, old) for spec, old in zip(new, original, strict=True))
    *others, last = new
    return (*others, _with_slice(last, original[-1]))


def _with_slice(spec: str, original: str) -> str:
    """A spec with the slice of the original one if it has none."""
    found = split_slice(original)[1]
    return spec if found is None or split_slice(spec)[1] is not None else f"{spec}[{found}]"


def _tokenizer(run: Path) -> Tokenizer:
    """The run's tokenizer. Raises TrainError if its file is missing or corrupted."""
    path = run / "tokenizer.json"
    remedy = "restore it from any checkpoint of the run"
    if not path.exists():
        raise TrainError(f"{path} is missing; {remedy}")
    try:
        return load_tokenizer(path)
    except OcrError as exc:
        raise TrainError(f"{exc}; {remedy}") from exc


def _sources(config: Config, original: Config) -> Sources:
    """Opens the shards trained on. Raises UsageError if some are not found, perhaps since the run
    gave their paths relative to another folder."""
    try:
        return open_training(config)
    except SpecError as exc:
        specs = shlex.join([*original.shards, *original.text, *original.source])
        raise UsageError(
            f"{exc}; the run was started with {specs}: run this command in the same folder as "
            f"training, or pass the new paths with {_FLAGS[bool(original.source)]}"
        ) from exc


def _samples(run: _OpenedRun, batch: Batch, rows: range) -> tuple[RebuiltSample, ...]:
    """Adds to each segment of the batch what the plan and the shard indexes know about it."""
    views = list(run.sources.train.values())
    found = []
    planned = run.plan.rows(batch.step - run.plan.first_step, rows)
    for number, row, places in zip(rows, batch.rows, planned, strict=True):
        for segment, place in zip(row.segments, places, strict=True):
            found.append(RebuiltSample(number, segment, place.epoch, _sizes(views, place, segment)))
    return tuple(found)


def _sizes(
    views: list[Shards], place: SampleIndex, segment: Segment
) -> tuple[tuple[int, int], ...]:
    """Original width and height, from the index, of the images a sample has after truncation."""
    images = views[place.source].row(place.position).images[: segment.images]
    return tuple((image.width, image.height) for image in images)


def _compare(run: _OpenedRun, step: int, identity: str, recorded: str) -> TrainError | None:
    """The error for a batch whose identity is not the one recorded for its step, else None."""
    if identity == recorded:
        return None
    return TrainError(
        f"{run.folder / batch_log.FILE}: step {step} was trained on a batch with identity "
        f"{recorded}, but the rebuilt batch has {identity}; {_reason(run)}"
    )


def _missing_record(run: _OpenedRun, step: int, saved: Sequence[Path]) -> TrainError | None:
    """The error for a step that is not recorded although training has passed it, else None.
    `saved` are the run's checkpoints."""
    path = run.folder / batch_log.FILE
    remedy = "restore it, or show the unverified batch with --anyway"
    if not path.exists():
        return TrainError(f"{path} is missing, so step {step} cannot be verified; {remedy}")
    later = [folder for folder in saved if _step(folder) > step]
    if later:
        return TrainError(
            f"{path} ends before step {step}, but {later[0]} is of a later step; {remedy}"
        )
    return None


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def _reason(run: _OpenedRun) -> str:
    """Why the batch may differ: what has changed since the newest checkpoint."""
    found = checkpoint.complete_checkpoints(run.folder)
    if not found:
        return "the cause is unknown, since the run has no checkpoint to compare with"
    folder = found[-1]
    try:
        saved = Checkpoint.open(folder)
        # A checkpoint has the planned number of steps, config.json the requested one.
        then = replace(saved.config, steps=run.config.steps)
        changed = [
            f"{flag_name(one.name)}: {one.old} then, {one.new} now"
            for one in compare(then, run.config)
            if not one.field.metadata["runtime"]
        ]
        if saved.tokenizer().fingerprint != run.tokenizer.fingerprint:
            changed.append("the tokenizer differs")
        changed += [
            text for text in saved.changed_versions() if not text.startswith(_IRRELEVANT_VERSIONS)
        ]
    except (OcrError, OSError) as exc:
        return f"the cause is unknown, since {folder} cannot be read: {exc}"
    if not changed:
        return f"settings, tokenizer and library versions match {folder}"
    return f"changed since {folder}: {'; '.join(changed)}"
