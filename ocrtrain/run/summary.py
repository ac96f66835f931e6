"""What a run came to, told when it ends or stops: its figures, where things are, what to type next.

In: the run's log and state. Out: a document of figures, the same as text, and commands that are
right as they are printed.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from ocrdata.runtime.units import human_bytes, human_time
from ocrdata.storage.fetching import fetcher
from ocrtrain.data.skipped import FILE as SKIPPED_FILE
from ocrtrain.run import run_log, timer
from ocrtrain.run.changes import Change, read_changes
from ocrtrain.run.job import Job
from ocrtrain.run.loop import encoder_path
from ocrtrain.settings import presets
from ocrtrain.settings.checks import init_is_path
from ocrtrain.settings.flags import GROUPS, override, typed
from ocrtrain.settings.rules import RECIPE_OF
from ocrtrain.state import checkpoint
from ocrtrain.state.run_files import Line

_PARTS = (*timer.PARTS, "other")

_OF_A_STAGE = ("freeze", "fresh_gpt", "deepencoder")
"""Settings of the model in which stages differ."""


def figures(job: Job, *, ended: bool) -> dict[str, Any]:
    """The figures of a run, as JSON values."""
    lines, state = run_log.read(job.run), job.state
    steps = [line for line in lines if "train/loss" in line]
    seconds = sum(line["train/dt"] for line in steps)
    validations = [_validation(line) for line in lines if "val/loss" in line]
    saved = checkpoint.complete_checkpoints(job.run)
    encoder = encoder_path(job)
    return {
        "run": str(job.run),
        "ended": ended,
        "step": state.step,
        "steps": job.config.steps,
        "seconds": seconds,
        "wait_seconds": sum(line["train/wait"] for line in steps),
        "parts_seconds": {
            part: sum(line.get(f"train/time_{part}", 0.0) for line in steps) for part in _PARTS
        },
        "validation_seconds": sum(line.get("time/validation", 0.0) for line in lines),
        "saving_seconds": sum(line.get("time/saving", 0.0) for line in lines),
        "tokens": state.total_tokens,
        "planned_tokens": job.planned_tokens,
        "tokens_per_second": state.total_tokens / seconds if seconds else None,
        "train_loss": {
            "first": _loss(steps[:1]),
            "last": _loss(steps[-job.config.log_every :]),
            "last_steps": len(steps[-job.config.log_every :]),
        },
        "validation": {
            "first": validations[0] if validations else None,
            "last": validations[-1] if validations else None,
        },
        "changes": [vars(one) for one in read_changes(job.run)],
        "skipped": len(job.skipped),
        "afar": fetcher().figures(),
        "checkpoint": str(saved[-1]) if saved else None,
        "deepencoder": str(encoder) if encoder.exists() else None,
    }


def _loss(lines: list[Line]) -> float | None:
    """Nats per supervised token over some steps."""
    known = [line for line in lines if line["train/loss"] is not None]
    count = sum(line["train/supervised"] for line in known)
    total = sum(line["train/loss"] * line["train/supervised"] for line in known)
    return total / count if count else None


def _validation(line: Line) -> dict[str, Any]:
    return {
        name.removeprefix("val/"): value
        for name, value in line.items()
        if name == "step" or name.startswith("val/")
    }


def describe(found: dict[str, Any], commands: dict[str, str]) -> str:
    """The figures as text, and what to type next."""
    seconds, step = found["seconds"], found["step"]
    head = (
        f"done: {_steps(step)} in {found['run']}"
        if found["ended"]
        else f"stopped at step {step:,} of {found['steps']:,}, "
        + ("saved" if found["checkpoint"] else "nothing to save yet")
    )
    lines = [head]
    if seconds:
        lines.append(
            f"  time        {human_time(seconds)} in steps, {found['wait_seconds'] / seconds:.1%} "
            f"of it waiting for data; {found['tokens']:,} tokens, "
            f"{found['tokens_per_second']:,.0f} a second"
        )
        lines.append(f"  of it       {_parts(found)}")
    if any((afar := found["afar"]).values()):
        lines.append(
            f"  from afar   {human_bytes(afar['bytes'])} in {afar['requests']:,} requests, "
            f"{human_bytes(afar['cached_bytes'])} from the cache"
        )
    lines += [f"  changed     {Change(**one).describe()}" for one in found["changes"]]
    if found["skipped"]:
        planned = found["planned_tokens"]
        lines.append(
            f"  skipped     samples were skipped {found['skipped']} times ({SKIPPED_FILE}): "
            + (f"{found['tokens']:,} of {planned:,} planned" if planned else f"{found['tokens']:,}")
            + " tokens were trained on"
        )
    loss = found["train_loss"]
    if loss["first"] is not None and loss["last"] is not None:
        lines.append(
            f"  loss        {loss['first']:.4f} at first, {loss['last']:.4f} over the last "
            f"{_steps(loss['last_steps'])}"
        )
    lines += _validations(found["validation"])
    lines.append(f"  checkpoint  {found['checkpoint'] or 'none'}")
    if found["deepencoder"]:
        lines.append(f"  encoder     {found['deepencoder']}")
    lines.append(f"  every step  {Path(found['run']) / run_log.FILE}")
    for what, command in commands.items():
        lines += [f"{what}:", f"  {command}"]
    return "\n".join(lines)


def _validations(found: dict[str, dict[str, Any] | None]) -> list[str]:
    first, last = found["first"], found["last"]
    if first is None or last is None:
        return []
    lines = []
    for name in [name for name in last if name.endswith("_loss")]:
        losses = [
            f"{_number(one.get(name))} at step {one['step']:,}"
            for one in (first, last)[first == last :]
        ]
        lines.append(f"  validation  {name.removesuffix('_loss')} {', '.join(losses)}")
    if last.get("image_gain") is not None:
        lines.append(
            f"  image gain  {last['image_gain']:.4f} nats a token: what the right image is worth"
        )
    return lines


def _parts(found: dict[str, Any]) -> str:
    """Where the time of the steps went, and what came on top."""
    parts = [
        f"{part} {took / found['seconds']:.0%}" for part, took in found["parts_seconds"].items()
    ]
    on_top = [
        f"{human_time(found[f'{what}_seconds'])} {what}"
        for what in ("validation", "saving")
        if found[f"{what}_seconds"]
    ]
    return ", ".join(parts) + (f"; besides {', '.join(on_top)}" if on_top else "")


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count:,} steps"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def next_commands(job: Job, document: dict[str, Any], *, program: str) -> dict[str, str]:
    """What to type next, by what it does. `document` has the figures of the run, `program` is how
    the stage was typed."""
    config, run = job.config, str(job.run)
    if not document["ended"]:
        return {"to continue": shlex.join([*shlex.split(program), "--out", run, "--resume"])}
    found = {}
    words = ["python", "-m", "ocrtrain.evaluate", "--checkpoint", run]
    words += ["--exchange"] if "image_gain" in (document["validation"]["last"] or ()) else []
    found["does it read? Every answer to the validation samples, and its score"] = shlex.join(words)
    if "sam" not in config.freeze:
        hint = "" if config.text or config.source else " (--text SHARDS mixes chats in)"
        found[f"the second stage{hint}"] = shlex.join(_next_stage(job))
    ask = ["python", "-m", "ocrtrain.ask", "--checkpoint", run, "--image"]
    found["ask it about an image of yours"] = f'{shlex.join(ask)} FILE "What is the title?"'
    return found


def _next_stage(job: Job) -> list[str]:
    """The command that trains on from this run's encoder, on the same data, with SAM frozen."""
    config = job.config
    target = presets.stage2(config.preset, config.recipe)
    carried = {
        *GROUPS["data"], *GROUPS["model"], *GROUPS["sizes of the model"], "source", "val_source",
        "source_at", "image_size", "image_size_of", "device", "workers", "wandb",
    } - set(_OF_A_STAGE)  # fmt: skip
    if init_is_path(config):  # the encoder has what was taken from there, the GPT starts anew
        carried -= {"init", "init_parts"}
        config = replace(config, tokenizer=config.tokenizer or str(job.run / "tokenizer.json"))
    if presets.init_word(config) == "random":
        target = override(target, {"vocab_size": config.model.vocab_size})
    words = ["python", "-m", "ocrtrain.stage2"]
    words += ["--preset", config.preset] if config.preset != "full" else []
    words += ["--recipe", config.recipe] if config.recipe != RECIPE_OF[config.preset] else []
    words += ["--deepencoder", str(encoder_path(job))]
    words += typed(config, target, only=carried)
    if config.out or (Path(target.run_folder) / "config.json").exists():
        words += ["--out", f"{str(job.run).rstrip('/')}-stage2"]
    return words
