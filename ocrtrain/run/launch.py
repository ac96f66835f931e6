"""Starting a run, or going on with one: everything between a typed command and the loop.

Owner of `train(config)`, one for every stage, and of the run folder's beginning: its lock,
`config.json`, `plan.json`, and which checkpoint to go on from. Whatever can fail cheaply fails
here, before a weight is loaded. The loop itself is in `ocrtrain.run.loop`.
"""

from __future__ import annotations

import textwrap
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from ocrdata.errors import UsageError
from ocrdata.storage.files import explain_disk, make_folder
from ocrdata.storage.locks import Lock
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.cost import gpus
from ocrtrain.cost.forecast import Forecast, describe, figures, forecast
from ocrtrain.cost.memory import preflight, this_machine
from ocrtrain.data import skipped as bad_samples
from ocrtrain.data.run_plan import check_same, plan_run
from ocrtrain.data.skipped import SkippedSamples
from ocrtrain.data.sources import (
    Sources,
    check_validation,
    describe_shared,
    open_sources,
    shared_samples,
)
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
from ocrtrain.run import batch_log, run_log
from ocrtrain.run.batch_log import BatchLog
from ocrtrain.run.loop import Job, run_loop
from ocrtrain.run.optimizer import build_optimizer
from ocrtrain.run.resume import check_checkpoint, newest, resumed_config
from ocrtrain.run.run_log import RunLog
from ocrtrain.run.spikes import Spikes
from ocrtrain.settings.checks import check_data, check_weights
from ocrtrain.settings.config import Config, to_json
from ocrtrain.settings.flags import ParsedFlags
from ocrtrain.state import checkpoint
from ocrtrain.state.checkpoint import Checkpoint, State
from ocrtrain.state.run_files import write_sealed


def start(asked: ParsedFlags) -> int:
    """Run what a stage's command line asked for; returns the exit status."""
    config = resumed_config(asked) if asked.resume else asked.config
    return train(config, resume=asked.resume)


def train(config: Config, *, resume: bool = False) -> int:
    """Train one run. 0 when it ended or reached --stop-at, 130 when it was interrupted.

    Raises UsageError for a config that cannot be meant, TrainError where a run stands in the way
    or must stop, and what reading shards raises.
    """
    run = Path(config.run_folder)
    with ExitStack() as stack:
        found = newest(run) if resume else None
        _refuse_another_run(run, resume=resume)
        if found is None:  # a checkpoint holds what was in the files a run began with
            check_data(config)
            check_weights(config)
        sources = open_sources(config)
        device = resolve_device(config.device)
        preflight(config, device)
        make_folder(run)
        stack.enter_context(Lock(run / ".lock", f"the run {run}"))
        _refuse_another_run(run, resume=resume)  # one may have begun while shards were opened
        if resume and checkpoint.complete_checkpoints(run)[-1:] != (
            [found.folder] if found else []
        ):
            raise UsageError(f"{run} has just been trained by another process; look at it first")
        job = _prepare(config, run, sources, device=device, found=found)
        stack.callback(job.close)
        ended = run_loop(job, fresh=found is None)
        return _say_how_it_stands(job, ended)


def _refuse_another_run(run: Path, *, resume: bool) -> None:
    if not resume and (run / "config.json").exists():
        raise UsageError(
            f"{run} holds a run already; resume it with --resume, or choose another --out"
        )


def _prepare(
    config: Config, run: Path, sources: Sources, *, device: torch.device, found: Checkpoint | None
) -> Job:
    """Everything the loop needs, fresh or from a checkpoint."""
    checkpoint.clean(run)
    checkpoint.prune(run, config.keep)  # what a kill just after the last save left
    torch.manual_seed(config.seed)
    tokenizer = found.tokenizer() if found else find_tokenizer(config)
    requested = with_vocabulary(config, tokenizer)
    planned = plan_run(requested, sources, tokenizer)
    # Where a source ends the run early, the learning rate falls with its real end.
    effective = replace(requested, steps=min(requested.steps, planned.plan.steps))
    if found:  # a resumed run must see the rows it began with
        remedy = "bring them back to go on, or start a new run"
        check_same(run / "plan.json", planned.recipe(), remedy=remedy)
    bad = SkippedSamples(skip=config.bad_samples == "skip", limit=config.max_bad)
    if found:
        bad.load(run)
        check_checkpoint(run, found, effective, bad)
    expected = forecast(effective, planned)
    _introduce(effective, sources, run, expected, requested.steps)
    if not found:
        check_validation(sources, effective, tokenizer)
    _warn_of_memory(expected, device)
    model, optimizer = _model_and_optimizer(effective, tokenizer, device, found)
    state = found.state if found else State()
    log = _begin_files(run, effective, state, fresh=found is None)
    write_sealed(run / "config.json", to_json(requested))
    write_sealed(run / "plan.json", {**planned.recipe(), "figures": figures(expected)})
    tokenizer.save(run / "tokenizer.json")
    spikes = Spikes()
    spikes.remember(run_log.read(run))
    return Job(
        config=effective,
        run=run,
        device=device,
        tokenizer=tokenizer,
        sources=sources,
        stream=Stream(planned.plan, sources, effective, tokenizer=tokenizer, bad=bad),
        bad=bad,
        model=model,
        optimizer=optimizer,
        state=state,
        log=log,
        record=BatchLog(run, samples=config.log_samples),
        spikes=spikes,
        planned_tokens=planned.totals.sums.tokens,
    )


def _warn_of_memory(expected: Forecast, device: torch.device) -> None:
    have = this_machine(device).memory
    if expected.memory > have:
        print(
            f"WARNING: a step takes about {expected.memory / 1e9:.3g} GB at its peak, "
            f"{have / 1e9:.3g} GB are free; give --micro-batch 1 --checkpointing, or fewer "
            "--row-images",
            flush=True,
        )


def _model_and_optimizer(
    config: Config, tokenizer: Tokenizer, device: torch.device, found: Checkpoint | None
) -> tuple[OcrModel, torch.optim.AdamW]:
    """Both as the run begins, or as the checkpoint has them; torch's random state too."""
    if found is None:
        model = new_model(config, tokenizer).to(device).train()
        return model, build_optimizer(model, config)
    # Its weights are all in the checkpoint: nothing is asked of the hub.
    model = ready_to_train(bare_model(config, tokenizer), config).to(device).train()
    optimizer = build_optimizer(model, config)
    found.load_weights(model)
    found.load_optimizer(model, optimizer)
    found.load_random_state()
    for change in found.changed_versions():
        print(f"this machine differs, so losses may differ in the last bits: {change}")
    print(f"resuming at step {found.state.step} from {found.folder}")
    return model, optimizer


def _begin_files(run: Path, config: Config, state: State, *, fresh: bool) -> RunLog:
    """The run's logs, cut back to the state it goes on from."""
    run_log.cut_back(run, state.step)
    batch_log.cut_back(run, state.step)
    # The log first: where Weights & Biases does not start, the folder holds no run yet.
    log = RunLog(run, config, wandb_id=state.wandb_id)
    if fresh:
        with explain_disk(run):
            (run / bad_samples.FILE).unlink(missing_ok=True)
    return log


def _introduce(
    config: Config, sources: Sources, run: Path, expected: Forecast, asked_steps: int
) -> None:
    """What is about to happen, on the console."""
    print(resolved(config))
    print(describe(expected))
    if config.steps < asked_steps:
        print(
            f"the run ends after {config.steps:,} of {asked_steps:,} steps, because a source is "
            "exhausted"
        )
    for name, shards in sources.validation.items():
        print(f"validate on {len(shards):,} samples of {name}")
    shared = shared_samples(sources)
    if shared:
        print(describe_shared(shared))
    print(gpus.model_summary(config))
    print(f"run folder: {run}", flush=True)


def resolved(config: Config) -> str:
    """Every setting that is in force, as flags, wrapped for a terminal."""
    value = to_json(config)
    del value["version"]
    settings = value | value.pop("model")
    words = []
    for name, setting in settings.items():
        text = " ".join(map(str, setting)) if isinstance(setting, list | tuple) else str(setting)
        words.append(f"{name}={text or '-'}")
    return textwrap.fill(", ".join(words), 100, break_long_words=False, break_on_hyphens=False)


def _say_how_it_stands(job: Job, ended: bool) -> int:
    """The last line, and the exit status."""
    step, config = job.state.step, job.config
    if ended:
        if len(job.bad):
            print(
                f"samples were skipped {len(job.bad)} times (bad.jsonl): "
                f"{job.state.total_tokens:,} tokens were trained on, {job.planned_tokens:,} planned"
            )
        print(f"done: {step} steps in {job.run}")
        return 0
    saved = "saved" if step else "with nothing to save"
    print(
        f"stopped at step {step} of {config.steps}, {saved}; go on with the same command "
        f"and --resume (--out {job.run})"
    )
    return 0 if config.stop_at and step >= config.stop_at else 130
