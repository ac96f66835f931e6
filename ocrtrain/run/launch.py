"""Starts or resumes a run: from the flags of a typed command to the training loop.

    1. `ocrtrain/stage1.py` or `stage2.py` parses the flags into a config and calls `start`. With
       --resume, the config is the one saved in the run folder (`run/resume.py`).
    2. `train` is the same for every stage. It makes the cheap checks, opens the shards (indexes
       only), estimates the memory, and creates and locks the run folder.
    3. `_prepare` builds the `Job` of the run: the plan, which a resumed run must share with its
       `plan.json`; the model and optimizer, new or from the checkpoint; the logs. It prints what
       the run will take and writes `config.json`, `plan.json` and `tokenizer.json`.
    4. `run_loop` (`run/loop.py`) trains, validates and saves until the run ends or is stopped.
    5. The summary (`run/summary.py`) says what came of it, where things are, and what to type next.

Whatever can fail cheaply fails before a weight is loaded.
"""

from __future__ import annotations

import os
import shlex
import textwrap
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ocrdata.errors import Problems, UsageError
from ocrdata.runtime.cli import print_json, text_aside
from ocrdata.storage.files import explain_disk, make_folder
from ocrdata.storage.locks import Lock
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.cost import gpus
from ocrtrain.cost.forecast import Forecast, describe, figures, forecast
from ocrtrain.cost.memory import preflight, this_machine
from ocrtrain.data import plan_file
from ocrtrain.data.continued_plan import ContinuedPlan, continue_plan, new_plan
from ocrtrain.data.inputs import check_inputs
from ocrtrain.data.leaks import check_leaks
from ocrtrain.data.plan_file import write_parts
from ocrtrain.data.run_plan import RunPlan, plan_run
from ocrtrain.data.skipped import FILE as SKIPPED_FILE
from ocrtrain.data.skipped import SkippedSamples
from ocrtrain.data.sources import Sources, check_validation, open_sources
from ocrtrain.data.stream import Stream
from ocrtrain.model.attention_trial import check_way
from ocrtrain.model.device import autocast_type
from ocrtrain.model.factory import (
    bare_model,
    check_tokenizer,
    find_tokenizer,
    new_model,
    ready_to_train,
    with_vocabulary,
)
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.model.start import check_start
from ocrtrain.run import batch_log, run_log, summary
from ocrtrain.run.alarm import LossCurve
from ocrtrain.run.attention_choice import choose_attention
from ocrtrain.run.batch_log import BatchLog
from ocrtrain.run.changes import (
    Change,
    describe_changes,
    find_changes,
    read_changes,
    write_changes,
)
from ocrtrain.run.console import Console
from ocrtrain.run.job import Job, Logs
from ocrtrain.run.loop import run_loop
from ocrtrain.run.optimizer import build_optimizer
from ocrtrain.run.parallel import ModelOfRanks, for_ranks
from ocrtrain.run.profiling import profiled_steps
from ocrtrain.run.ranks import device_of_rank, open_world, silent_unless_first
from ocrtrain.run.resume import check_checkpoint, check_extension, newest, resumed_config
from ocrtrain.run.run_log import RunLog
from ocrtrain.run.sinks import check_sinks, chosen_sinks
from ocrtrain.run.spikes import Spikes
from ocrtrain.run.timer import StepTimer
from ocrtrain.settings.config import Config
from ocrtrain.settings.flags import ParsedFlags, typed
from ocrtrain.settings.saved_config import to_json
from ocrtrain.settings.world import World, said_once, world_of
from ocrtrain.state import checkpoint
from ocrtrain.state.checkpoint import Checkpoint, State
from ocrtrain.state.run_files import write_sealed


def start(flags: ParsedFlags) -> int:
    """Start or resume the run that a stage's command line describes; returns the exit status. With
    --json the summary at the end is a document, and all else is on standard error."""
    # A run that torchrun starts again goes on from its newest checkpoint.
    world = world_of(os.environ)
    resume = flags.resume or world.restarts > 0
    as_json = bool(flags.others.get("json"))
    with text_aside(as_json):
        with said_once(world):
            config = resumed_config(flags) if resume else flags.config
        status, document = _start(config, resume, flags, new_data=flags.new_data)
    if as_json and document is not None:
        print_json(document)
    return status


def train(config: Config, *, resume: bool = False, new_data: bool = False) -> int:
    """Train one run. Returns 0 if it ended or reached --stop-at, 130 if it was interrupted.

    With `resume`, `config` may differ from the run's where the run may change (docs/training.md);
    other data need `new_data`.
    Raises UsageError for an invalid config or a run folder in use, TrainError if the run cannot be
    resumed or must stop, and whatever reading the shards raises; PeerError if that happened to
    another rank.
    """
    return _start(config, resume, None, new_data=new_data)[0]


def _start(
    config: Config, resume: bool, flags: ParsedFlags | None, *, new_data: bool
) -> tuple[int, dict[str, Any] | None]:
    """`train`, with the command line the config came from; returns the summary's document too, on
    the rank that prints."""
    described = world_of(os.environ)
    with said_once(described):
        device = _check_request(config, resume, described)
    with open_world(described, device) as world, silent_unless_first(world):
        status, document = _train(config, resume, flags, world, new_data=new_data)
    # torchrun takes any other status for a failure, and would start a run again that was stopped.
    return (0 if world.is_distributed else status), (document if world.is_first else None)


def _check_request(config: Config, resume: bool, world: World) -> torch.device:
    """The device of this rank. Raises UsageError for all that is wrong with the command line and
    can be seen without opening shards or touching a device, and what weights that do not fit
    raise."""
    run, problems = Path(config.run_folder), Problems()
    with problems:
        _check_is_free(run, resume=resume)
    with problems:
        world.rows_per_pass(config)
    if config.schedule_from and not resume:
        problems.add(
            f"--schedule-from {config.schedule_from} needs --resume or --extend: the schedule of a "
            "new run begins at step 0"
        )
    if not (resume and checkpoint.complete_checkpoints(run)):
        # A checkpoint contains all that a new run loads from these files.
        with problems:
            check_inputs(config)
            check_tokenizer(config)
            check_start(config)
    with problems:
        check_sinks(chosen_sinks(config))
    with problems:
        profiled_steps(config.profile, 0)
    with problems:
        device = device_of_rank(config.device, world)
        check_way(config.attention, device, autocast_type(config.precision, device))
    problems.raise_all()
    return device


def _train(
    config: Config,
    resume: bool,
    flags: ParsedFlags | None,
    world: World,
    *,
    new_data: bool,
) -> tuple[int, dict[str, Any]]:
    run = Path(config.run_folder)
    program = flags.prog if flags else f"python -m ocrtrain.{config.name}"
    base = flags.preset(config.preset, config.recipe) if flags else Config()
    with ExitStack() as stack:
        found, sources = world.one_first(lambda: _open(config, resume))
        _check_same_checkpoint(found, world)
        world.together(
            lambda: preflight(
                world.config(config),
                torch.device(world.device),
                done=found.state.step if found else 0,
            )
        )
        world.on_first(lambda: _take_folder(run, found, resume, stack))
        job = _prepare(config, base, sources, world=world, found=found, new_data=new_data)
        stack.push(lambda kind, *_: job.close(failed=kind is not None))
        ended = run_loop(job, fresh=found is None)
        job.console.close()
        # The files of the run are read: they are rank 0's.
        document, commands = world.on_first(lambda: _summarise(job, ended, program)) or ({}, {})
    reached = ended or (config.stop_at and job.state.step >= config.stop_at)
    return (0 if reached else 130), {**document, "next": commands}


def _summarise(job: Job, ended: bool, program: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Print what came of the run; returns its figures and the next commands."""
    document = summary.figures(job, ended=ended)
    commands = summary.next_commands(job, document, program=program)
    print(summary.describe(document, commands), flush=True)
    return document, commands


def _open(config: Config, resume: bool) -> tuple[Checkpoint | None, Sources]:
    """The newest checkpoint of a run to resume, and the sources."""
    found = newest(Path(config.run_folder)) if resume else None
    sources = open_sources(config)
    return found, sources.with_notes(check_leaks(sources, allow=config.allow_leak))


def _check_same_checkpoint(found: Checkpoint | None, world: World) -> None:
    """Check that all ranks resume from the same checkpoint. Raises UsageError."""
    steps = world.exchange_json(found.state.step if found else None)
    for rank, step in enumerate(steps):
        if step != steps[0]:
            raise UsageError(
                f"rank {rank} finds "
                + ("no checkpoint" if step is None else f"a checkpoint of step {step}")
                + f", rank 0 {'none' if steps[0] is None else f'one of step {steps[0]}'}; "
                "the folder of --out must be on a disk that all machines share"
            )


def _take_folder(run: Path, found: Checkpoint | None, resume: bool, stack: ExitStack) -> None:
    """Make and lock the run's folder. Raises UsageError if another process has it, or trained here
    in the meantime."""
    make_folder(run)
    stack.enter_context(Lock(run / ".lock", f"the run {run}"))
    _check_is_free(run, resume=resume)
    if resume and checkpoint.complete_checkpoints(run)[-1:] != ([found.folder] if found else []):
        raise UsageError(
            f"{run}: another process saved a newer checkpoint; inspect it, then rerun with --resume"
        )
    checkpoint.clean(run)


def _check_is_free(run: Path, *, resume: bool) -> None:
    """Check that a run may be written to a folder. Raises UsageError."""
    nearest = next(part for part in (run, *run.parents) if part.exists())
    if not nearest.is_dir():
        raise UsageError(f"--out {run}: {nearest} is a file, not a folder; choose another --out")
    if resume:
        return
    if (run / "config.json").exists():
        raise UsageError(
            f"{run} already contains a run; resume it with --resume, or choose another --out"
        )
    shards = sorted(path.name for path in run.glob("*.tar*"))
    if shards:
        raise UsageError(
            f"{run} contains shards ({shards[0]}); a run needs a folder of its own: choose another "
            "--out"
        )


def _prepare(
    config: Config,
    base: Config,
    sources: Sources,
    *,
    world: World,
    found: Checkpoint | None,
    new_data: bool,
) -> Job:
    """Everything the loop needs, new or from the checkpoint `found`. `base` is the config that the
    flags of this run changed."""
    run, device = Path(config.run_folder), torch.device(world.device)
    torch.manual_seed(config.seed)
    tokenizer = world.one_first(lambda: found.tokenizer() if found else find_tokenizer(config))
    requested = with_vocabulary(config, tokenizer)
    continued = world.one_first(
        lambda: _plan(world.config(requested), sources, tokenizer, found, new_data=new_data)
    )
    planned = continued.planned
    _check_same_plan(planned, world)
    last = continued.start + planned.plan.steps
    if found:
        world.together(lambda: check_extension(found, requested, planned, last))
    # If a source ends the run early, the learning-rate schedule ends with it.
    effective = replace(requested, steps=min(requested.steps, last))
    skipped = SkippedSamples(skip=config.bad_samples == "skip", limit=config.max_bad)
    changes: list[Change] = []
    made: list[Change] = []
    if found:
        changes, made = world.together(
            lambda: _check_resumed(effective, continued, skipped, found, world)
        )
    expected = forecast(world.config(effective), planned, cuda=device.type == "cuda")
    print(settings(config, base))
    print("".join(f"{line}\n" for line in describe_changes(made)), end="")
    _print_overview(effective, sources, run, expected, requested.steps)
    if world.size > 1:
        print(f"{world.size} ranks, {effective.batch // world.size} rows a step each")
    if not found or continued.data_changes:
        world.on_first(lambda: check_validation(sources, effective, tokenizer))
    _warn_of_memory(expected, device)
    attention, why = world.on_first_json(
        lambda: choose_attention(
            world.config(effective), planned, run, device, resumed=found is not None
        )
    )
    print(f"{why}\n" if why else "", end="")
    model, trainer, optimizer = world.together(
        lambda: _model_and_optimizer(effective, tokenizer, world, found)
    )
    model.attention = attention

    def open_folder() -> Logs:
        logs = _open_logs(effective, found)
        # The settings last: what a killed process left of changes without them is found again.
        write_parts(run / plan_file.FILE, continued.parts, figures(expected))
        write_changes(run, changes)
        write_sealed(run / "config.json", to_json(requested))
        tokenizer.save(run / "tokenizer.json")
        return logs

    logs = world.on_first(open_folder)
    state = found.state if found else State()
    stream = Stream(
        planned.plan, sources, effective, tokenizer=tokenizer, skipped=skipped, world=world
    )
    stream.fetch_ahead(state.step)
    return Job(
        config=effective,
        run=run,
        world=world,
        tokenizer=tokenizer,
        sources=sources,
        stream=stream,
        skipped=skipped,
        model=model,
        trainer=trainer,
        optimizer=optimizer,
        state=state,
        logs=logs,
        console=Console(effective, done=state.step),
        planned_tokens=None if continued.start else planned.totals.sums.tokens,
        timer=StepTimer(device),
    )


def _plan(
    config: Config,
    sources: Sources,
    tokenizer: Tokenizer,
    found: Checkpoint | None,
    *,
    new_data: bool,
) -> ContinuedPlan:
    """The plan of a new run, or that of the run of a checkpoint, which must train on the rows that
    it started with until its data are changed."""
    if found is None:
        return new_plan(plan_run(config, sources, tokenizer))
    return continue_plan(
        config,
        sources,
        tokenizer,
        path=Path(config.run_folder) / plan_file.FILE,
        before=(found.state.step, found.config),
        new_data=new_data,
    )


def _check_same_plan(planned: RunPlan, world: World) -> None:
    """Check that every rank planned the same batches. Raises UsageError."""
    digests = world.exchange_json(planned.plan.digest)
    for rank, digest in enumerate(digests):
        if digest != digests[0]:
            raise UsageError(
                f"rank {rank} plans other batches than rank 0: its shards or libraries differ; all "
                "machines need the same shards and the same versions"
            )


def _check_resumed(
    config: Config,
    continued: ContinuedPlan,
    skipped: SkippedSamples,
    found: Checkpoint,
    world: World,
) -> tuple[list[Change], list[Change]]:
    """Check that a checkpoint belongs to the run, and read the skipped samples. Returns all changes
    of the run, and those made now."""
    run = Path(config.run_folder)
    if world.is_first:
        skipped.load(run)
    else:
        skipped.replay(run)
    check_checkpoint(run, found, config, skipped)
    return find_changes(
        read_changes(run), found.state.step, found.config, config, continued.data_changes
    )


def _warn_of_memory(expected: Forecast, device: torch.device) -> None:
    have = this_machine(device).memory
    if expected.memory > have:
        print(
            f"WARNING: a step needs about {expected.memory / 1e9:.3g} GB at its peak, but only "
            f"{have / 1e9:.3g} GB are free; use --micro-batch 1 --checkpointing or, with --pack, a "
            "smaller --row-images",
            flush=True,
        )


def _model_and_optimizer(
    config: Config, tokenizer: Tokenizer, world: World, found: Checkpoint | None
) -> tuple[OcrModel, ModelOfRanks, torch.optim.Optimizer]:
    """New ones, or those of the checkpoint with its random state."""
    device = torch.device(world.device)
    if found is None:
        model = new_model(config, tokenizer, say=print).to(device).train()
    else:
        # All weights are in the checkpoint: nothing is loaded from the hub.
        model = ready_to_train(bare_model(config, tokenizer), config).to(device).train()
        found.load_weights(model)
    trainer = for_ranks(model, world, config.parallel)
    optimizer = build_optimizer(model, config, _shards(trainer))
    if found is None:
        return model, trainer, optimizer
    found.load_optimizer(model, optimizer, trainer.place)
    found.load_random_state()
    for change in found.changed_versions():
        print(f"losses may differ in the last bits from those of an uninterrupted run: {change}")
    print(f"resuming at step {found.state.step} from {found.folder}")
    return model, trainer, optimizer


def _shards(trainer: ModelOfRanks) -> ModelOfRanks | None:
    """What reaches the parts of other ranks, if there are parts."""
    return trainer if trainer.shards else None


def _open_logs(config: Config, found: Checkpoint | None) -> Logs:
    """Cut the logs of a run back to the state it continues from, and open them."""
    run, state = Path(config.run_folder), found.state if found else State()
    # A process killed after its last save leaves one too many. Only now is the newest one verified;
    # until then an older one may be the only one left to resume from.
    checkpoint.prune(run, config.keep)
    run_log.cut_back(run, state.step)
    batch_log.cut_back(run, state.step)
    # Before config.json is written: if a sink fails to start, the folder has no run yet.
    metrics = RunLog(run, config, step=state.step, wandb_id=state.wandb_id)
    if found is None:
        with explain_disk(run):
            (run / SKIPPED_FILE).unlink(missing_ok=True)
    spikes, curve = Spikes(), LossCurve()
    spikes.remember(run_log.read(run))
    curve.remember(run_log.read(run))
    return Logs(metrics, BatchLog(run, samples=config.log_samples), spikes, curve)


def _print_overview(
    config: Config, sources: Sources, run: Path, expected: Forecast, requested_steps: int
) -> None:
    """Print what is about to happen."""
    print(describe(expected))
    if config.steps < requested_steps:
        print(
            f"the run ends after {config.steps:,} of {requested_steps:,} steps, because a source "
            "is exhausted"
        )
    print("\n".join(sources.describe()))
    print(gpus.model_summary(config))
    print(f"run folder: {run}", flush=True)


def settings(config: Config, base: Config) -> str:
    """The settings that differ from those of the preset, as one would type them."""
    words = typed(config, base)
    changed = shlex.join(words) if words else "nothing changed"
    text = f"{base.name}, preset {base.preset}, recipe {base.recipe}, with {changed}"
    return textwrap.fill(
        text, 100, break_long_words=False, break_on_hyphens=False, subsequent_indent="  "
    )
