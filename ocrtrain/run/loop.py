"""The training loop, one for every stage.

Owner of the loop and its stops; a run is made ready by `ocrtrain.run.launch`. State N is the
weights after N optimiser steps; step N leads from state N to state N + 1 and trains on `plan(N)`.
At a state the run validates and saves as the config says, in that order, so that a checkpoint never
knows less than the log.
"""

from __future__ import annotations

import math
import signal
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from ocrdata.errors import OcrError, TrainError
from ocrdata.reading.prefetch import Prefetcher
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.cost import gpus
from ocrtrain.data.batch import Batch
from ocrtrain.data.skipped import SkippedSamples
from ocrtrain.data.sources import Sources
from ocrtrain.data.stream import Stream
from ocrtrain.evaluation.validation import ValidationOptions, validate
from ocrtrain.model.device import autocast_type
from ocrtrain.model.encoder_file import save_deepencoder
from ocrtrain.model.ocr_model import LossSum, OcrModel
from ocrtrain.run import run_log
from ocrtrain.run.batch_log import BatchLog
from ocrtrain.run.optimizer import learning_rate, set_rate
from ocrtrain.run.run_log import RunLog
from ocrtrain.run.spikes import Spikes
from ocrtrain.settings.config import Config
from ocrtrain.state import checkpoint
from ocrtrain.state.checkpoint import State

BLIND_AFTER = 0.5
"""Fraction of a run after which a model that does not look at images is worth a warning."""


@dataclass
class Job:
    """All that the loop works on. `state` moves; the rest stays."""

    config: Config
    run: Path
    device: torch.device
    tokenizer: Tokenizer
    sources: Sources
    stream: Stream
    bad: SkippedSamples
    model: OcrModel
    optimizer: torch.optim.Optimizer
    state: State
    log: RunLog
    record: BatchLog
    spikes: Spikes
    planned_tokens: int

    def close(self) -> None:
        """End the files of the run."""
        self.record.close()
        self.log.close()


@dataclass
class StepResult:
    """What one optimiser step gave. `loss` is nats per supervised token over the whole batch, NaN
    where it has none; `positions` those of its passes, padding included."""

    loss: float
    grad_norm: float
    positions: int


class Interrupt:
    """Ctrl-C or SIGTERM asks for a stop at the next state; a second one ends at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Interrupt:
        self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this step; press again to stop at once without saving", flush=True)

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)


def run_loop(job: Job, *, fresh: bool) -> bool:
    """Train from `job.state` to the end, or to where it is stopped. True where it ended.

    `fresh` is False for a run that was resumed: its first state is saved already, and validated
    unless that failed.
    """
    config, state = job.config, job.state
    settled = not fresh  # this state is validated and saved
    if not fresh and _validates(config, state.step) and not _validated(job):
        _validate(job)
    last = min(config.steps, config.stop_at or config.steps)
    with ExitStack() as stack:
        interrupt = stack.enter_context(Interrupt())
        batches = Prefetcher(job.stream.batch, state.step, stop=last, workers=config.workers)
        stack.enter_context(batches)
        while True:
            stopping = state.step >= last or interrupt.asked
            if not settled:
                if _validates(config, state.step):
                    _validate_or_save(job)
                if state.step and (_due(state.step, config.save_every) or stopping):
                    _save(job)
            if stopping:
                break
            _step(job, batches)
            settled = False
    if state.step < config.steps:
        return False
    if not _deepencoder_path(job).exists():  # also after a kill between the last checkpoint and it
        _save_deepencoder(job)
    return True


def _validates(config: Config, step: int) -> bool:
    """Whether the state of a step is validated."""
    return _due(step, config.eval_every) or step == config.steps


def _validate_or_save(job: Job) -> None:
    """Validate; where that fails, what was trained until here is not lost with it."""
    try:
        _validate(job)
    except OcrError:
        if job.state.step:
            _save(job)
        raise


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


def _step(job: Job, batches: Prefetcher[Batch]) -> None:
    """One optimiser step, its log line, and the console's."""
    config, state = job.config, job.state
    began = time.perf_counter()
    batch = next(batches)
    if batch.skipped:
        job.bad.record(job.run, batch)
    rate = learning_rate(config, state.step)
    set_rate(job.optimizer, rate)
    measured = _train_step(job, batch)
    seconds = time.perf_counter() - began

    flops = gpus.batch_flops(config, batch)
    state.total_flops += flops
    state.total_tokens += batch.tokens
    state.seconds += seconds
    values = {
        "train/loss": measured.loss,
        "train/lr": rate,
        "train/dt": seconds,
        "train/wait": batches.waited,
        "train/tok_per_sec": batch.tokens / seconds,
        "train/total_flops": state.total_flops,
        "train/grad_norm": measured.grad_norm,
        "train/padding": 1 - batch.tokens / measured.positions,
        "train/positions": measured.positions,
        "train/tokens": batch.tokens,
        "train/supervised": batch.supervised,
        "train/cut_tokens": batch.truncated_tokens,
        "train/cut_turns": batch.truncated_turns,
        "train/images": len(batch.images),
        "train/bad": len(batch.skipped),
        **_shares(job, batch),
    }
    peak = gpus.peak_flops(job.device)
    # The peaks known are those of bf16.
    if peak and autocast_type(config.precision, job.device) is not None:
        values["train/mfu"] = flops / seconds / peak
    job.log.write(state.step, values)
    state.identity = job.record.write(batch)
    state.step += 1
    eta = state.seconds / state.step * (config.steps - state.step)
    print(run_log.console_line(batch.step, config.steps, values, eta), flush=True)
    height = job.spikes.height(batch.sources, measured.loss) if batch.supervised else None
    if height is not None:
        print(
            f"WARNING at step {batch.step}: the loss is {measured.loss:.4f}, {height:.0f} "
            f"deviations above those before it; look at the batch with\n  python "
            f"tools/show_batch.py --run {job.run} --step {batch.step}\n"
            f"  samples: {_names(batch)}",
            flush=True,
        )


def _names(batch: Batch) -> str:
    """The samples of a batch, by shard and key."""
    return ", ".join(f"{ref.shard}:{ref.key}" for ref in batch.refs)


def _shares(job: Job, batch: Batch) -> dict[str, float]:
    """Rows of each source in this batch, as shares."""
    rows = len(batch.sources)
    return {f"mix/{name}_share": batch.sources.count(name) / rows for name in job.sources.train}


def _train_step(job: Job, batch: Batch) -> StepResult:
    """Forward, backward and update over the batch's micro-batches.

    The loss is the sum over all supervised positions of the batch divided by their number, so it
    does not depend on how the batch is split. Raises TrainError where it is not finite, before
    anything is updated.
    """
    config, model = job.config, job.model
    job.optimizer.zero_grad(set_to_none=True)
    total, positions = 0.0, 0
    for piece in batch.split(config.rows_per_pass):
        with _autocast(config, job.device):
            part = piece.to(job.device)
            found: LossSum = model(part.input_ids, part.position_ids, part.targets, part.images)
            loss = found.loss_sum / max(1, batch.supervised)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        total += loss.item()
        positions += piece.input_ids.numel()
    trained = [p for p in model.parameters() if p.requires_grad]
    norm = torch.nn.utils.clip_grad_norm_(trained, config.grad_clip).item()
    if not (math.isfinite(total) and math.isfinite(norm)):
        raise TrainError(
            f"step {batch.step}: loss {total} and gradient norm {norm}: the run stops before the "
            f"weights are touched\n  samples of the batch: {_names(batch)}\n"
            "  look at them, or start a new run with a lower --lr; what was saved before is kept"
        )
    job.optimizer.step()
    return StepResult(total if batch.supervised else math.nan, norm, positions)


def _autocast(config: Config, device: torch.device) -> Any:
    kind = autocast_type(config.precision, device)
    return nullcontext() if kind is None else torch.autocast(device.type, kind)


def _validated(job: Job) -> bool:
    """Whether the log has a validation of this state."""
    return any(
        line["step"] == job.state.step and any(name.startswith("val/") for name in line)
        for line in run_log.read(job.run)
    )


def _validate(job: Job) -> None:
    """Validate this state, log it, and say in words what should worry a person."""
    config, state = job.config, job.state
    result = validate(
        job.model,
        job.sources.validation,
        job.tokenizer,
        ValidationOptions(
            seq_len=config.seq_len,
            batch=config.val_batch,
            workers=config.workers,
            precision=autocast_type(config.precision, job.device),
        ),
    )
    numbers = result.numbers()
    job.log.write(state.step, numbers)
    text = " | ".join(f"{name.removeprefix('val/')} {value:.4f}" for name, value in numbers.items())
    print(f"validation at {state.step}: {text}", flush=True)
    trained_enough = state.step >= BLIND_AFTER * config.steps
    for warning in result.warnings(blind_matters=trained_enough):
        print(f"WARNING at step {state.step}: {warning}", flush=True)


def _save(job: Job) -> None:
    """Write the checkpoint of this state, after its log."""
    config, state = job.config, job.state
    job.log.sync()
    job.record.sync()
    state.wandb_id, state.skipped = job.log.wandb_id, job.bad.before(state.step)
    folder = checkpoint.save(
        job.run,
        replace(state),
        config=config,
        model=job.model,
        optimizer=job.optimizer,
        tokenizer=job.tokenizer,
    )
    checkpoint.prune(job.run, config.keep)
    print(f"saved {folder}", flush=True)


def _deepencoder_path(job: Job) -> Path:
    return job.run / f"deepencoder_{job.state.step:06d}.safetensors"


def _save_deepencoder(job: Job) -> None:
    """Write the encoder of a run that has ended."""
    path = _deepencoder_path(job)
    save_deepencoder(job.model, path, {"step": job.state.step, "run": job.config.name})
    print(f"saved {path}", flush=True)
