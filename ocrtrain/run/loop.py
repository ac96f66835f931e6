"""The training loop, the same for every stage. `ocrtrain.run.launch` prepares the `Job` it works
on.

State N is the weights after N optimizer steps. Step N trains on batch N of the plan and leads from
state N to state N + 1. At each state the run first validates, then saves, if either is due. A
checkpoint without the validation of its state means that the validation failed; resuming repeats
it.
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
from ocrtrain.run.console import Console, source_of
from ocrtrain.run.optimizer import learning_rate, set_rate
from ocrtrain.run.run_log import RunLog
from ocrtrain.run.spikes import Spikes
from ocrtrain.settings.config import Config
from ocrtrain.state import checkpoint
from ocrtrain.state.checkpoint import State

BLIND_AFTER = 0.5
"""Fraction of a run after which a model that ignores the images is worth a warning."""


@dataclass
class Job:
    """Everything the loop works on. `state` counts what is done."""

    config: Config
    run: Path
    device: torch.device
    tokenizer: Tokenizer
    sources: Sources
    stream: Stream
    skipped: SkippedSamples
    model: OcrModel
    optimizer: torch.optim.Optimizer
    state: State
    log: RunLog
    batch_log: BatchLog
    spikes: Spikes
    console: Console
    planned_tokens: int

    def close(self, *, failed: bool = False) -> None:
        """Close the console and the run's log files; W&B is told whether the run failed."""
        self.console.close()
        self.batch_log.close()
        self.log.close(failed=failed)


@dataclass
class StepResult:
    """The outcome of one optimizer step. `loss` is in nats per supervised token over the whole
    batch, NaN if it has none; `positions` counts those of all passes, padding included."""

    loss: float
    learning_rate: float
    grad_norm: float
    positions: int


class Interrupt:
    """Ctrl-C or SIGTERM requests a stop after the current step; a second one stops at once."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interrupt:
        self._before = {s: signal.signal(s, self._stop) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print(
            "\nstopping after this step; press Ctrl-C again to stop at once without saving",
            flush=True,
        )

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)


def run_loop(job: Job, *, fresh: bool) -> bool:
    """Train from `job.state` until the run ends or is stopped. True if it ended.

    `fresh`: nothing is saved yet. A resumed run starts at a saved state, which may still lack its
    validation.
    """
    config, state = job.config, job.state
    settled = not fresh  # whether the current state is validated and saved
    if not fresh and _validates(config, state.step) and not _validated(job):
        _validate(job)
    last = min(config.steps, config.stop_at or config.steps)
    with ExitStack() as stack:
        interrupt = stack.enter_context(Interrupt())
        batches = Prefetcher(job.stream.assembly, state.step, stop=last, workers=config.workers)
        stack.enter_context(batches)
        while True:
            stopping = state.step >= last or interrupt.requested
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
    # A resumed run may lack it too: if it was killed after its last checkpoint.
    if not encoder_path(job).exists():
        _save_deepencoder(job)
    return True


def _validates(config: Config, step: int) -> bool:
    """Whether the state at a step is to be validated."""
    return _due(step, config.eval_every) or step == config.steps


def _validate_or_save(job: Job) -> None:
    """Validate; if that fails, save first, so that no training is lost."""
    try:
        _validate(job)
    except OcrError:
        if job.state.step:
            _save(job)
        raise


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


def _step(job: Job, batches: Prefetcher[Batch]) -> None:
    """One optimizer step: get a batch, train on it, log and print the outcome."""
    config, state = job.config, job.state
    started = time.perf_counter()
    batch = next(batches)
    if batch.skipped:
        job.skipped.record(job.run, batch)
    result = _train_step(job, batch)
    seconds = time.perf_counter() - started

    flops = gpus.batch_flops(config, batch)
    state.total_flops += flops
    state.total_tokens += batch.tokens
    state.seconds += seconds
    metrics = _metrics(job, batch, result, seconds=seconds, wait=batches.waited, flops=flops)
    job.log.write(state.step, metrics)
    state.identity = job.batch_log.write(batch)
    state.step += 1
    eta = state.seconds / state.step * (config.steps - state.step)
    job.console.step(batch.step, source_of(batch.sources), metrics, eta=eta)
    if batch.supervised:
        _report_spike(job, batch, result.loss)


def _train_step(job: Job, batch: Batch) -> StepResult:
    """Forward, backward and update over the batch's micro-batches.

    The loss is the sum over all supervised positions of the batch divided by their number, so it
    does not depend on how the batch is split. Raises TrainError if loss or gradient is not finite,
    before any weight is updated.
    """
    config, model = job.config, job.model
    rate = learning_rate(config, job.state.step)
    set_rate(job.optimizer, rate)
    job.optimizer.zero_grad(set_to_none=True)
    total, positions = 0.0, 0
    for micro_batch in batch.split(config.rows_per_pass):
        with _autocast(config, job.device):
            part = micro_batch.to(job.device)
            sums: LossSum = model(part.input_ids, part.position_ids, part.targets, part.images)
            loss = sums.loss_sum / max(1, batch.supervised)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        total += loss.item()
        positions += micro_batch.input_ids.numel()
    trained = [p for p in model.parameters() if p.requires_grad]
    norm = torch.nn.utils.clip_grad_norm_(trained, config.grad_clip).item()
    if not (math.isfinite(total) and math.isfinite(norm)):
        raise TrainError(
            f"step {batch.step}: loss {total}, gradient norm {norm}: not finite, so the run stops "
            f"before the weights are updated\n  samples of the batch: {_sample_names(batch)}\n"
            "  inspect them, or start a new run with a lower --lr; saved checkpoints are kept"
        )
    job.optimizer.step()
    return StepResult(total if batch.supervised else math.nan, rate, norm, positions)


def _autocast(config: Config, device: torch.device) -> Any:
    kind = autocast_type(config.precision, device)
    return nullcontext() if kind is None else torch.autocast(device.type, kind)


def _metrics(
    job: Job, batch: Batch, result: StepResult, *, seconds: float, wait: float, flops: float
) -> dict[str, float]:
    """The numbers of a step under the names they are logged by. `seconds` is the time of the whole
    step, `wait` the part of it spent waiting for the batch."""
    rows = len(batch.sources)
    metrics = {
        "train/loss": result.loss,
        "train/lr": result.learning_rate,
        "train/dt": seconds,
        "train/wait": wait,
        "train/tok_per_sec": batch.tokens / seconds,
        "train/total_flops": job.state.total_flops,
        "train/grad_norm": result.grad_norm,
        "train/padding": 1 - batch.tokens / result.positions,
        "train/positions": result.positions,
        "train/tokens": batch.tokens,
        "train/supervised": batch.supervised,
        "train/cut_tokens": batch.truncated_tokens,
        "train/cut_turns": batch.truncated_turns,
        "train/images": len(batch.images),
        "train/bad": len(batch.skipped),
    }
    for name in job.sources.train:
        metrics[f"mix/{name}_share"] = batch.sources.count(name) / rows
    peak = gpus.peak_flops(job.device)
    # The known peaks are those of bf16.
    if peak and autocast_type(job.config.precision, job.device) is not None:
        metrics["train/mfu"] = flops / seconds / peak
    return metrics


def _report_spike(job: Job, batch: Batch, loss: float) -> None:
    """Print a warning if the loss of a batch is far above earlier ones."""
    height = job.spikes.height(batch.sources, loss)
    if height is not None:
        job.console.say(
            f"WARNING at step {batch.step}: the loss is {loss:.4f}, {height:.0f} robust standard "
            "deviations above the median of earlier ones; inspect the batch with\n"
            f"  python tools/show_batch.py --run {job.run} --step {batch.step}\n"
            f"  samples: {_sample_names(batch)}"
        )


def _sample_names(batch: Batch) -> str:
    """The samples of a batch, by shard and key."""
    return ", ".join(f"{ref.shard}:{ref.key}" for ref in batch.refs)


def _validated(job: Job) -> bool:
    """Whether the log has a validation of this state."""
    return any(
        line["step"] == job.state.step and any(name.startswith("val/") for name in line)
        for line in run_log.read(job.run)
    )


def _validate(job: Job) -> None:
    """Validate this state, log the numbers, and print warnings."""
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
    job.console.flush()
    job.console.say(f"validation at {state.step}: {text}")
    trained_enough = state.step >= BLIND_AFTER * config.steps
    for warning in result.warnings(warn_if_blind=trained_enough):
        job.console.say(f"WARNING at step {state.step}: {warning}")


def _save(job: Job) -> None:
    """Write the checkpoint of this state, after making its logs durable."""
    config, state = job.config, job.state
    job.log.sync()
    job.batch_log.sync()
    state.wandb_id, state.skipped = job.log.wandb_id, job.skipped.before(state.step)
    folder = checkpoint.save(
        job.run,
        replace(state),
        config=config,
        model=job.model,
        optimizer=job.optimizer,
        tokenizer=job.tokenizer,
    )
    checkpoint.prune(job.run, config.keep)
    job.console.flush()
    job.console.say(f"saved {folder}")


def encoder_path(job: Job) -> Path:
    """The encoder file of the run, written when it ends."""
    return job.run / f"deepencoder_{job.state.step:06d}.safetensors"


def _save_deepencoder(job: Job) -> None:
    """Write the encoder file of a run that has ended."""
    path = encoder_path(job)
    save_deepencoder(job.model, path, {"step": job.state.step, "run": job.config.name})
    job.console.say(f"saved {path}")
