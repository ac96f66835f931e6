"""One optimizer step: a batch from the loader, forward and backward over its micro-batches, the
update, and the numbers that are logged and printed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ocrdata.errors import TrainError
from ocrdata.reading.prefetch import Prefetcher
from ocrtrain.cost import gpus
from ocrtrain.cost.flops import optimizer_flops
from ocrtrain.data.batch_rows import BatchSummary, joined_summary
from ocrtrain.model.device import autocast_type
from ocrtrain.model.ocr_model import encoder_passes
from ocrtrain.run.job import Job
from ocrtrain.run.optimizer import learning_rate, set_rate
from ocrtrain.run.parallel import who_encodes
from ocrtrain.run.passes import Passes
from ocrtrain.run.spikes import Spikes
from ocrtrain.settings.config import Config


@dataclass
class StepResult:
    """The outcome of one optimizer step. `loss` is in nats per supervised token over the whole
    batch, NaN if it has none; `row_losses` are the sums over the supervised tokens of each row."""

    loss: float
    row_losses: list[float]
    learning_rate: float
    grad_norm: float


@dataclass
class _Agreed:
    """What all ranks know before a step: this rank's passes, the whole batch, its positions with
    padding, the longest wait, and `encode` of `who_encodes`."""

    passes: Passes
    whole: BatchSummary
    positions: int
    wait: float
    encode: list[int]


def train_step(job: Job, batches: Prefetcher[Passes]) -> None:
    """One optimizer step: get a batch, train on it, log and print the outcome.

    If it fails, `job.state` and the weights are those before the step, unless the update itself
    failed (`job.is_intact`).
    """
    config, state = job.config, job.state
    started = time.perf_counter()
    job.timer.begin()
    agreed = _agree(job, batches)
    batch = agreed.whole
    job.timer.end("data")
    result = _compute(job, agreed)
    if job.logs is not None:  # before the update: a checkpoint must not be ahead of its log
        job.logs.batches.write(batch)
    _update(job)
    seconds = time.perf_counter() - started

    flops = gpus.batch_flops(config, batch)
    state.total_flops += flops
    state.total_tokens += batch.tokens
    state.seconds += seconds
    state.identity = batch.identity
    state.step += 1
    of_sources = by_source(batch, result.row_losses)
    for name, found in of_sources.items():
        _add(state.source_tokens, name, found.tokens)
        _add(state.source_supervised, name, found.supervised)
    metrics = _metrics(job, agreed, result, seconds=seconds, flops=flops)
    metrics |= _source_metrics(job, of_sources)
    if job.logs is not None:
        job.logs.metrics.write(batch.step, metrics)
        job.logs.curve.add(metrics)
    eta = state.seconds / state.step * (config.steps - state.step)
    job.console.step(batch.step, list(of_sources), metrics, eta=eta)
    if batch.supervised and job.logs is not None:
        _report_spike(job, job.logs.spikes, batch, result.loss)


def _agree(job: Job, batches: Prefetcher[Passes]) -> _Agreed:
    """Get the batch. No rank goes on before all have theirs and know what is in it, so that a
    sample that cannot be used stops all of them, or is masked by all and recorded."""
    world = job.world

    def told(passes: Passes) -> dict[str, Any]:
        return {
            "summary": passes.batch.summary.to_json() if world.size > 1 else None,
            "encodes": [encoder_passes(inputs.layouts) for inputs in passes.inputs],
            "positions": passes.positions,
            "wait": batches.waited,
        }

    passes, ranks = world.gather(lambda: next(batches), told)
    summaries = [rank["summary"] for rank in ranks]
    whole = joined_summary(summaries) if world.size > 1 else passes.batch.summary
    if whole.skipped:
        world.together(lambda: job.skipped.record(job.run, whole, write=world.is_first))
    return _Agreed(
        passes=passes,
        whole=whole,
        positions=sum(rank["positions"] for rank in ranks),
        wait=max(rank["wait"] for rank in ranks),
        encode=who_encodes([rank["encodes"] for rank in ranks]),
    )


def _compute(job: Job, agreed: _Agreed) -> StepResult:
    """Forward and backward over the batch's micro-batches.

    The program waits for the device once, for losses and gradient norm together. Raises TrainError
    if one of them is not finite, before any weight is updated.
    """
    batch = agreed.whole
    rate = learning_rate(job.config, job.state.step)
    set_rate(job.optimizer, rate)
    total, norm, *row_losses = _gradients(job, agreed).tolist()
    if job.world.size > 1:  # the gradient is that of all ranks, the losses are of this one's rows
        ranks = job.world.exchange_json([total, *row_losses])
        total = sum(rank[0] for rank in ranks)
        row_losses = [loss for rank in ranks for loss in rank[1:]]
    if not (math.isfinite(total) and math.isfinite(norm)):
        raise job.world.agreed(TrainError(_not_finite(batch, total, norm)))
    loss = total if batch.supervised else math.nan
    return StepResult(loss, row_losses, rate, norm)


def _not_finite(batch: BatchSummary, loss: float, norm: float) -> str:
    return (
        f"step {batch.step}: loss {loss}, gradient norm {norm}: not finite, so the run stops "
        f"before the weights are updated\n  samples of the batch: {_sample_names(batch)}\n"
        "  inspect them, or start a new run with a lower --lr; saved checkpoints are kept"
    )


def _update(job: Job) -> None:
    """Update the weights."""
    job.is_intact = False
    job.optimizer.step()
    job.is_intact = True
    job.timer.end("optimizer")


def _gradients(job: Job, agreed: _Agreed) -> Tensor:
    """Compute the gradients of a batch: clipped, in the parameters. Returns this rank's loss, the
    gradient norm and the summed loss of each of its rows, float64 [2 + rows] on the device; waits
    for the device nowhere.

    The loss is the sum over all supervised positions of the batch divided by their number, so it
    does not depend on how the batch is split, into micro-batches or across ranks. A pass that
    touches no trained parameter adds its loss and no gradient.
    """
    world, timer = job.world, job.timer
    job.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), dtype=torch.float64, device=job.device)
    losses = []
    for number, inputs in enumerate(agreed.passes.arrived(), start=1):
        timer.end("copy")
        with _autocast(job.config, job.device):
            sums = job.trainer.loss(
                inputs,
                passes=agreed.encode[number - 1] if world.is_distributed else 0,
                last=number == len(agreed.encode),
            )
            loss = sums.loss_sum / max(1, agreed.whole.supervised)
        timer.end("forward")
        # Without a graph the pass touched no trained parameter: text with the GPT frozen.
        if loss.requires_grad:
            # DDP and FSDP take the mean of the ranks' gradients, and this is to be their sum.
            scaled = loss * world.size if world.size > 1 else loss
            scaled.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        timer.end("backward")
        total += loss.detach()
        losses.append(sums.losses)
    most = job.config.grad_clip or math.inf
    trained = [p for p in job.model.parameters() if p.requires_grad]
    norm = job.trainer.gather(torch.nn.utils.clip_grad_norm_(trained, most))
    rows = torch.split(torch.cat(losses).double(), list(agreed.passes.batch.row_supervised))
    found = torch.stack([total, norm.double(), *(row.sum() for row in rows)])
    timer.end("optimizer")
    return found


def _autocast(config: Config, device: torch.device) -> Any:
    kind = autocast_type(config.precision, device)
    return nullcontext() if kind is None else torch.autocast(device.type, kind)


def _metrics(
    job: Job, agreed: _Agreed, result: StepResult, *, seconds: float, flops: float
) -> dict[str, float]:
    """The numbers of a step, over all ranks, under the names they are logged by. `seconds` is the
    time of the whole step; its parts are those of rank 0."""
    batch = agreed.whole
    rows = len(batch.sources)
    metrics = {
        "train/loss": result.loss,
        "train/lr": result.learning_rate,
        "train/dt": seconds,
        "train/wait": agreed.wait,
        "train/tok_per_sec": batch.tokens / seconds,
        "train/total_flops": job.state.total_flops,
        "train/grad_norm": result.grad_norm,
        "train/padding": 1 - batch.tokens / agreed.positions,
        "train/positions": agreed.positions,
        "train/tokens": batch.tokens,
        "train/supervised": batch.supervised,
        "train/cut_tokens": batch.truncated_tokens,
        "train/cut_turns": batch.truncated_turns,
        "train/images": batch.image_count,
        "train/image_samples": sum(bool(segment.images) for segment in batch.segments),
        "train/bad": len(batch.skipped),
        "train/total_tokens": job.state.total_tokens,
        "train/optimizer_flops": optimizer_flops(
            job.config.model, optimizer=job.config.optimizer, frozen=job.config.freeze
        ),
    }
    parts = job.timer.seconds()
    metrics |= {f"train/time_{part}": took for part, took in parts.items()}
    metrics["train/time_other"] = seconds - sum(parts.values())
    for name in job.sources.train:
        metrics[f"mix/{name}_share"] = batch.sources.count(name) / rows
    peak = gpus.peak_flops(job.device)
    # The known peaks are those of bf16.
    if peak and autocast_type(job.config.precision, job.device) is not None:
        metrics["train/mfu"] = flops / seconds / (peak * job.world.size)
    return metrics


@dataclass
class SourceSums:
    """Of one source in a batch: tokens, those that carry loss, and their summed loss in nats."""

    tokens: int = 0
    supervised: int = 0
    loss: float = 0.0


def by_source(batch: BatchSummary, row_losses: Sequence[float]) -> dict[str, SourceSums]:
    """The sums of the sources of a batch, from the summed loss of each row."""
    found: dict[str, SourceSums] = {}
    for row, supervised, loss in zip(batch.rows, batch.row_supervised, row_losses, strict=True):
        sums = found.setdefault(row.source, SourceSums())
        sums.tokens += row.length
        sums.supervised += supervised
        sums.loss += loss
    return found


def _source_metrics(job: Job, found: dict[str, SourceSums]) -> dict[str, float]:
    """What is logged by source. A source without a supervised token in the batch has no loss."""
    metrics: dict[str, float] = {}
    for name in job.sources.train:
        sums = found.get(name, SourceSums())
        if sums.supervised:
            metrics[f"train/{name}_loss"] = sums.loss / sums.supervised
        metrics[f"train/{name}_tokens"] = sums.tokens
        metrics[f"train/{name}_supervised"] = sums.supervised
        metrics[f"train/{name}_total_tokens"] = job.state.source_tokens.get(name, 0)
    return metrics


def _add(counts: dict[str, int], name: str, more: int) -> None:
    counts[name] = counts.get(name, 0) + more


def _report_spike(job: Job, spikes: Spikes, batch: BatchSummary, loss: float) -> None:
    """Print a warning if the loss of a batch is far above earlier ones."""
    height = spikes.height(batch.sources, loss)
    if height is not None:
        job.console.say(
            f"WARNING at step {batch.step}: the loss is {loss:.4f}, {height:.0f} robust standard "
            "deviations above the median of earlier ones; inspect the batch with\n"
            f"  python tools/show_batch.py --run {job.run} --step {batch.step}\n"
            f"  samples: {_sample_names(batch)}"
        )


def _sample_names(batch: BatchSummary) -> str:
    """The samples of a batch, by shard and key."""
    return ", ".join(f"{ref.shard}:{ref.key}" for ref in batch.refs)
