"""One optimizer step: a batch from the loader, forward and backward over its micro-batches, the
update, and the numbers that are logged and printed.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ocrdata.errors import TrainError
from ocrdata.reading.prefetch import Prefetcher
from ocrtrain.cost import gpus
from ocrtrain.data.batch import Batch
from ocrtrain.model.device import autocast_type
from ocrtrain.model.ocr_model import LossSum
from ocrtrain.run.console import source_of
from ocrtrain.run.job import Job
from ocrtrain.run.optimizer import learning_rate, set_rate
from ocrtrain.run.passes import Passes
from ocrtrain.settings.config import Config


@dataclass
class StepResult:
    """The outcome of one optimizer step. `loss` is in nats per supervised token over the whole
    batch, NaN if it has none; `positions` counts those of all passes, padding included."""

    loss: float
    learning_rate: float
    grad_norm: float
    positions: int


def train_step(job: Job, batches: Prefetcher[Passes]) -> None:
    """One optimizer step: get a batch, train on it, log and print the outcome."""
    config, state = job.config, job.state
    started = time.perf_counter()
    passes = next(batches)
    batch = passes.batch
    if batch.skipped:
        job.skipped.record(job.run, batch.summary)
    result = _optimise(job, passes)
    seconds = time.perf_counter() - started

    flops = gpus.batch_flops(config, batch)
    state.total_flops += flops
    state.total_tokens += batch.tokens
    state.seconds += seconds
    metrics = _metrics(job, batch, result, seconds=seconds, wait=batches.waited, flops=flops)
    job.log.write(state.step, metrics)
    state.identity = job.batch_log.write(batch.summary)
    state.step += 1
    eta = state.seconds / state.step * (config.steps - state.step)
    job.console.step(batch.step, source_of(batch.sources), metrics, eta=eta)
    if batch.supervised:
        _report_spike(job, batch, result.loss)


def _optimise(job: Job, passes: Passes) -> StepResult:
    """Forward, backward and update over the batch's micro-batches.

    The program waits for the device once, for loss and gradient norm together. Raises TrainError if
    one of them is not finite, before any weight is updated.
    """
    batch = passes.batch
    rate = learning_rate(job.config, job.state.step)
    set_rate(job.optimizer, rate)
    total, norm = _gradients(job, passes).tolist()
    if not (math.isfinite(total) and math.isfinite(norm)):
        raise TrainError(
            f"step {batch.step}: loss {total}, gradient norm {norm}: not finite, so the run stops "
            f"before the weights are updated\n  samples of the batch: {_sample_names(batch)}\n"
            "  inspect them, or start a new run with a lower --lr; saved checkpoints are kept"
        )
    job.optimizer.step()
    return StepResult(total if batch.supervised else math.nan, rate, norm, passes.positions)


def _gradients(job: Job, passes: Passes) -> Tensor:
    """Compute the gradients of a batch: clipped, in the parameters. Returns loss and gradient norm,
    float64 [2] on the device; waits for the device nowhere.

    The loss is the sum over all supervised positions of the batch divided by their number, so it
    does not depend on how the batch is split. A pass that touches no trained parameter adds its
    loss and no gradient.
    """
    config, model = job.config, job.model
    job.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), dtype=torch.float64, device=job.device)
    for inputs in passes.arrived():
        with _autocast(config, job.device):
            sums: LossSum = model(inputs)
            loss = sums.loss_sum / max(1, passes.batch.supervised)
        # Without a graph the pass touched no trained parameter: text with the GPT frozen.
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        total += loss.detach()
    trained = [p for p in model.parameters() if p.requires_grad]
    norm = torch.nn.utils.clip_grad_norm_(trained, config.grad_clip)
    return torch.stack([total, norm.double()])


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
