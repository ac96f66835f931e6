"""The training loop, the same for every stage. `ocrtrain.run.launch` prepares the `Job` it works
on.

State N is the weights after N optimizer steps. Step N trains on batch N of the plan and leads from
state N to state N + 1. At each state the run first validates, then saves, if either is due. A
checkpoint without the validation of its state means that the validation failed or was broken off;
resuming repeats it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from ocrdata.errors import OcrError, first_line
from ocrdata.reading.prefetch import Prefetcher
from ocrtrain.evaluation.sampled_answers import AnswerOptions, answer_numbers
from ocrtrain.evaluation.validation import ValidationOptions, validate
from ocrtrain.model.device import autocast_type
from ocrtrain.model.encoder_file import save_deepencoder
from ocrtrain.model.factory import bare_model
from ocrtrain.run import run_log
from ocrtrain.run.job import Job
from ocrtrain.run.out_of_memory import (
    is_out_of_memory,
    out_of_memory,
    step_remedies,
    validation_remedies,
)
from ocrtrain.run.passes import Passes, PassMaker
from ocrtrain.run.profiling import Profiler, profiled_steps
from ocrtrain.run.step import train_step
from ocrtrain.run.stop import Interrupt, StopRequested
from ocrtrain.settings.config import Config
from ocrtrain.settings.world import World
from ocrtrain.state import checkpoint

BLIND_AFTER = 0.5
"""Fraction of a run after which a model that ignores the images is worth a warning, if its loss has
levelled off (`ocrtrain.run.alarm`); an encoder that has collapsed is worth it before."""


def run_loop(job: Job, *, fresh: bool) -> bool:
    """Train from `job.state` until the run ends or is stopped. True if it ended.

    `fresh`: nothing is saved yet. A resumed run starts at a saved state, which may still lack its
    validation.
    """
    config, state = job.config, job.state
    saved = not fresh
    validated = not _validates(config, state.step) or (
        saved and job.world.on_first_json(lambda: _validated(job))
    )
    last = min(config.steps, config.stop_at or config.steps)
    with ExitStack() as stack:
        interrupt = stack.enter_context(Interrupt())
        passes = PassMaker(
            job.stream.assembly, job.model, rows=job.world.rows_per_pass(config), device=job.device
        )
        batches = Prefetcher(passes, state.step, stop=last, workers=config.workers)
        stack.enter_context(batches)
        profiled = profiled_steps(config.profile, state.step)
        profiler = Profiler(job.run, profiled if job.world.is_first else range(0))
        while True:
            if not validated:
                validated = _validate_or_save(job, interrupt, saved=saved)
            stopping = state.step >= last or job.world.any(interrupt.requested)
            if state.step and not saved and (_due(state.step, config.save_every) or stopping):
                _save(job)
            if stopping:
                break
            step = state.step
            profiler.begin(step)
            _train_or_save(job, batches, saved=saved)
            trace = profiler.end(step, is_last=state.step >= last or interrupt.requested)
            if trace is not None:
                job.console.say(f"profile of steps up to {step}: {trace}")
            saved, validated = False, not _validates(config, state.step)
    if state.step < config.steps or not validated:
        return False
    # A resumed run may lack it too: if it was killed after its last checkpoint.
    if not job.world.on_first_json(encoder_path(job).exists):
        _save_deepencoder(job)
    return True


def _validates(config: Config, step: int) -> bool:
    """Whether the state at a step is to be validated."""
    return _due(step, config.eval_every) or step == config.steps


def _validate_or_save(job: Job, interrupt: Interrupt, *, saved: bool) -> bool:
    """Validate; False if a request to stop breaks it off, and a resumed run has to repeat it. If it
    fails, save first, so that no training is lost."""
    remedies = validation_remedies(job.config, is_fp32=_is_fp32(job))

    def check() -> None:
        if job.world.any(interrupt.requested):
            raise StopRequested

    try:
        with _saving_first(job, saved=saved):
            _without_memory_faults(
                f"validation at {job.state.step}",
                lambda: _validate(job, before_batch=check),
                remedies,
            )
    except StopRequested:
        job.console.say(f"validation at {job.state.step} broken off")
        return False
    return True


def _train_or_save(job: Job, batches: Prefetcher[Passes], *, saved: bool) -> None:
    """Train a step. If it fails, save the state before it, so that no training is lost."""
    remedies = step_remedies(job.config, is_fp32=_is_fp32(job))
    with _saving_first(job, saved=saved):
        _without_memory_faults(f"step {job.state.step}", lambda: train_step(job, batches), remedies)


def _is_fp32(job: Job) -> bool:
    return autocast_type(job.config.precision, job.device) is None


def _without_memory_faults(what: str, work: Callable[[], None], remedies: list[str]) -> None:
    """Do `work`. Raises TrainError where memory runs out."""
    try:
        return work()
    except Exception as exc:
        if not is_out_of_memory(exc):
            raise
        reason = first_line(exc)
    # Outside of `except`: the exception kept the tensors of the failed step in memory, and saving
    # may need it.
    raise out_of_memory(what, reason, remedies)


@contextmanager
def _saving_first(job: Job, *, saved: bool) -> Iterator[None]:
    """If the work in this context fails, save the state before it, unless it is `saved`. Ranks save
    together: what one of them fails with, and others do not know, is not followed by a save."""
    try:
        yield
    except StopRequested:
        raise
    except Exception as exc:
        is_agreed = job.world.size == 1 or (isinstance(exc, OcrError) and exc.is_agreed)
        if job.state.step and not saved and is_agreed:
            _save_last_state(job)
        raise


def _save_last_state(job: Job) -> None:
    """Save the state that a failed step began with. What keeps it from being saved is a warning:
    the error that ends the run is told after it. No older checkpoint is removed."""
    step = job.state.step
    job.optimizer.zero_grad(set_to_none=True)
    if not job.is_intact:
        job.console.say(f"WARNING: the update of step {step} failed: state {step} is lost")
    elif not all(bool(torch.isfinite(tensor).all()) for tensor in job.model.parameters()):
        job.console.say(f"WARNING: state {step} has weights that are not finite: not saved")
    else:
        try:
            _save(job, prune=False)
        except (OcrError, OSError, RuntimeError) as exc:
            job.console.say(f"WARNING: state {step} could not be saved: {first_line(exc)}")


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


def _validated(job: Job) -> bool:
    """Whether the log has a validation of this state."""
    return any(
        line["step"] == job.state.step and any(name.startswith("val/") for name in line)
        for line in run_log.read(job.run)
    )


def _validate(job: Job, *, before_batch: Callable[[], None]) -> None:
    """Validate this state, log the numbers, and print warnings."""
    config, state = job.config, job.state
    began = time.perf_counter()
    modes = {name: config.image_mode(name) for name in job.sources.validation}
    result = validate(
        job.model,
        job.sources.validation,
        job.tokenizer,
        ValidationOptions(
            seq_len=config.seq_len,
            batch=config.val_batch,
            workers=config.workers,
            precision=autocast_type(config.precision, job.device),
            modes=modes,
            before_batch=before_batch,
        ),
        # A model in parts is run by all ranks together, so that each validates on everything.
        World() if job.trainer.shards else job.world,
    )
    numbers = result.numbers()
    if config.val_answers:
        numbers |= answer_numbers(
            job.model,
            job.sources.validation,
            job.tokenizer,
            AnswerOptions(
                config.val_answers,
                autocast_type(config.precision, job.device),
                before_batch,
                modes=modes,
            ),
            job.world,
        )
    if job.logs is not None:
        took = {"time/validation": time.perf_counter() - began}
        job.logs.metrics.write(state.step, numbers | took)
    text = " | ".join(f"{name.removeprefix('val/')} {value:.4f}" for name, value in numbers.items())
    job.console.flush()
    job.console.say(f"validation at {state.step}: {text}")
    level = job.logs.curve.level() if job.logs is not None else None
    if level is not None:
        is_late = state.step >= BLIND_AFTER * config.steps
        for warning in result.warnings(warn_if_blind=is_late):
            job.console.say(f"WARNING at step {state.step}: {warning} ({level})")


def _save(job: Job, *, prune: bool = True) -> None:
    """Write the checkpoint of this state, after making its logs durable, and remove old ones."""
    began = time.perf_counter()
    tensors = _collect(job)
    job.world.on_first(lambda: _write_checkpoint(job, tensors, prune=prune, began=began))


def _collect(job: Job) -> checkpoint.Tensors:
    """The tensors of a checkpoint, on the rank that writes them."""
    gather = job.trainer.gather if job.trainer.shards else None
    return checkpoint.collect(job.model, job.optimizer, gather=gather, keep=job.world.is_first)


def _write_checkpoint(job: Job, tensors: checkpoint.Tensors, *, prune: bool, began: float) -> None:
    config, state = job.config, job.state
    if job.logs is not None:
        job.logs.sync()
        state.wandb_id = job.logs.metrics.wandb_id
    state.skipped = job.skipped.before(state.step)
    folder = checkpoint.save(
        job.run, replace(state), config=config, tensors=tensors, tokenizer=job.tokenizer
    )
    if prune:
        checkpoint.prune(job.run, config.keep)
    if job.logs is not None:
        job.logs.metrics.write(state.step, {"time/saving": time.perf_counter() - began})
    job.console.flush()
    job.console.say(f"saved {folder}")


def encoder_path(job: Job) -> Path:
    """The encoder file of the run, written when it ends."""
    return job.run / f"deepencoder_{job.state.step:06d}.safetensors"


def _save_deepencoder(job: Job) -> None:
    """Write the encoder file of a run that has ended."""
    tensors = _collect(job) if job.trainer.shards else None
    job.world.on_first(lambda: _write_deepencoder(job, tensors))


def _write_deepencoder(job: Job, tensors: checkpoint.Tensors | None) -> None:
    path, model = encoder_path(job), job.model
    if tensors is not None:  # the model is in parts
        model = bare_model(job.config, job.tokenizer)
        model.load_state_dict(tensors.weights)
    save_deepencoder(model, path, {"step": job.state.step, "run": job.config.name})
    job.console.say(f"saved {path}")
