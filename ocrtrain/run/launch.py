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
from ocrtrain.data.inputs import check_inputs
from ocrtrain.data.leaks import check_leaks
from ocrtrain.data.run_plan import check_same, plan_run
from ocrtrain.data.skipped import FILE as SKIPPED_FILE
from ocrtrain.data.skipped import SkippedSamples
from ocrtrain.data.sources import Sources, check_validation, open_sources
from ocrtrain.data.stream import Stream
from ocrtrain.model.device import resolve_device
from ocrtrain.model.factory import (
    bare_model,
    find_tokenizer,
    new_model,
    ready_to_train,
    with_vocabulary,
)
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.model.start import check_start
from ocrtrain.run import batch_log, run_log, summary
from ocrtrain.run.batch_log import BatchLog
from ocrtrain.run.console import Console
from ocrtrain.run.job import Job
from ocrtrain.run.loop import run_loop
from ocrtrain.run.optimizer import build_optimizer
from ocrtrain.run.profiling import profiled_steps
from ocrtrain.run.resume import check_checkpoint, newest, resumed_config
from ocrtrain.run.run_log import RunLog
from ocrtrain.run.sinks import check_sinks, chosen_sinks
from ocrtrain.run.spikes import Spikes
from ocrtrain.run.timer import StepTimer
from ocrtrain.settings.config import Config, to_json
from ocrtrain.settings.flags import ParsedFlags, typed
from ocrtrain.state import checkpoint
from ocrtrain.state.checkpoint import Checkpoint, State
from ocrtrain.state.run_files import write_sealed


def start(flags: ParsedFlags) -> int:
    """Start or resume the run that a stage's command line describes; returns the exit status. With
    --json the summary at the end is a document, and all else is on standard error."""
    as_json = bool(flags.others.get("json"))
    with text_aside(as_json):
        config = resumed_config(flags) if flags.resume else flags.config
        status, document = _train(config, flags.resume, flags)
    if as_json:
        print_json(document)
    return status


def train(config: Config, *, resume: bool = False) -> int:
    """Train one run. Returns 0 if it ended or reached --stop-at, 130 if it was interrupted.

    Raises UsageError for an invalid config or a run folder in use, TrainError if the run cannot be
    resumed or must stop, and whatever reading the shards raises.
    """
    return _train(config, resume, None)[0]


def _train(config: Config, resume: bool, flags: ParsedFlags | None) -> tuple[int, dict[str, Any]]:
    """`train`, with the command line the config came from; returns the summary's document too."""
    run = Path(config.run_folder)
    program = flags.prog if flags else f"python -m ocrtrain.{config.name}"
    base = flags.preset(config.preset) if flags else Config()
    with ExitStack() as stack:
        found = newest(run) if resume else None
        problems = Problems()
        with problems:
            _check_is_free(run, resume=resume)
        if found is None:  # a checkpoint contains all that a new run loads from these files
            with problems:
                check_inputs(config)
                check_start(config)
        with problems:
            check_sinks(chosen_sinks(config))
        with problems:
            profiled_steps(config.profile, 0)
        with problems:
            device = resolve_device(config.device)
        if not problems:
            with problems:
                sources = open_sources(config)
        problems.raise_all()
        sources = sources.with_notes(check_leaks(sources, allow=config.allow_leak))
        preflight(config, device, done=found.state.step if found else 0)
        make_folder(run)
        stack.enter_context(Lock(run / ".lock", f"the run {run}"))
        # Checked again under the lock: another process may have trained here in the meantime.
        _check_is_free(run, resume=resume)
        if resume and checkpoint.complete_checkpoints(run)[-1:] != (
            [found.folder] if found else []
        ):
            raise UsageError(
                f"{run}: another process saved a newer checkpoint; inspect it, then rerun with "
                "--resume"
            )
        job = _prepare(config, base, sources, device=device, found=found)
        stack.push(lambda kind, *_: job.close(failed=kind is not None))
        ended = run_loop(job, fresh=found is None)
        job.console.close()
        document = summary.figures(job, ended=ended)
        commands = summary.next_commands(job, document, program=program)
        print(summary.describe(document, commands), flush=True)
    reached = ended or (config.stop_at and document["step"] >= config.stop_at)
    return (0 if reached else 130), {**document, "next": commands}


def _check_is_free(run: Path, *, resume: bool) -> None:
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
    device: torch.device,
    found: Checkpoint | None,
) -> Job:
    """Everything the loop needs, new or from the checkpoint `found`. `base` is the config that the
    flags of this run changed."""
    run = Path(config.run_folder)
    checkpoint.clean(run)
    torch.manual_seed(config.seed)
    tokenizer = found.tokenizer() if found else find_tokenizer(config)
    requested = with_vocabulary(config, tokenizer)
    # A resumed run must train on the rows it started with.
    started = run / "plan.json" if found else None
    planned = plan_run(requested, sources, tokenizer, started=started)
    # If a source ends the run early, the learning-rate schedule ends with it.
    effective = replace(requested, steps=min(requested.steps, planned.plan.steps))
    if started:
        remedy = "restore them to resume, or start a new run"
        check_same(started, planned.recipe(), remedy=remedy)
    skipped = SkippedSamples(skip=config.bad_samples == "skip", limit=config.max_bad)
    if found:
        skipped.load(run)
        check_checkpoint(run, found, effective, skipped)
    expected = forecast(effective, planned)
    print(settings(config, base))
    _print_overview(effective, sources, run, expected, requested.steps)
    if not found:
        check_validation(sources, effective, tokenizer)
    _warn_of_memory(expected, device)
    model, optimizer = _model_and_optimizer(effective, tokenizer, device, found)
    # A process killed after its last save leaves one too many. Only now is the newest one verified;
    # until then an older one may be the only one left to resume from.
    checkpoint.prune(run, config.keep)
    state = found.state if found else State()
    log = _open_log(run, effective, state, fresh=found is None)
    write_sealed(run / "config.json", to_json(requested))
    write_sealed(run / "plan.json", {**planned.recipe(), "figures": figures(expected)})
    tokenizer.save(run / "tokenizer.json")
    spikes = Spikes()
    spikes.remember(run_log.read(run))
    stream = Stream(planned.plan, sources, effective, tokenizer=tokenizer, skipped=skipped)
    stream.fetch_ahead(state.step)
    return Job(
        config=effective,
        run=run,
        device=device,
        tokenizer=tokenizer,
        sources=sources,
        stream=stream,
        skipped=skipped,
        model=model,
        optimizer=optimizer,
        state=state,
        log=log,
        batch_log=BatchLog(run, samples=config.log_samples),
        spikes=spikes,
        console=Console(effective, done=state.step),
        planned_tokens=planned.totals.sums.tokens,
        timer=StepTimer(device),
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
    config: Config, tokenizer: Tokenizer, device: torch.device, found: Checkpoint | None
) -> tuple[OcrModel, torch.optim.AdamW]:
    """New ones, or those of the checkpoint with its random state."""
    if found is None:
        model = new_model(config, tokenizer, say=print).to(device).train()
        return model, build_optimizer(model, config)
    # All weights are in the checkpoint: nothing is loaded from the hub.
    model = ready_to_train(bare_model(config, tokenizer), config).to(device).train()
    optimizer = build_optimizer(model, config)
    found.load_weights(model)
    found.load_optimizer(model, optimizer)
    found.load_random_state()
    for change in found.changed_versions():
        print(f"losses may differ in the last bits from those of an uninterrupted run: {change}")
    print(f"resuming at step {found.state.step} from {found.folder}")
    return model, optimizer


def _open_log(run: Path, config: Config, state: State, *, fresh: bool) -> RunLog:
    """Cut the run's files back to the state it continues from, and open its log."""
    run_log.cut_back(run, state.step)
    batch_log.cut_back(run, state.step)
    # Before config.json is written: if a sink fails to start, the folder has no run yet.
    log = RunLog(run, config, step=state.step, wandb_id=state.wandb_id)
    if fresh:
        with explain_disk(run):
            (run / SKIPPED_FILE).unlink(missing_ok=True)
    return log


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
    text = f"{base.name}, preset {base.preset}, with {changed}"
    return textwrap.fill(
        text, 100, break_long_words=False, break_on_hyphens=False, subsequent_indent="  "
    )
