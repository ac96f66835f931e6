"""Resuming a run: which settings may change, its newest checkpoint, and whether the two belong to
the same run. Writes no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ocrdata.errors import TrainError, UsageError
from ocrdata.tokens.tokenizer import load_tokenizer
from ocrtrain.data.run_plan import RunPlan
from ocrtrain.data.skipped import FILE as SKIPPED_FILE
from ocrtrain.data.skipped import SkippedSamples
from ocrtrain.run import batch_log
from ocrtrain.run.changes import read_changes
from ocrtrain.settings.config import BYTES, Config
from ocrtrain.settings.flags import ParsedFlags, override
from ocrtrain.settings.presets import STAGES
from ocrtrain.settings.saved_config import differences, from_json
from ocrtrain.state import checkpoint
from ocrtrain.state.checkpoint import Checkpoint
from ocrtrain.state.run_files import read_sealed


def resumed_config(flags: ParsedFlags) -> Config:
    """The config saved in --out, with typed settings taken over where they may change; if no run is
    there, the typed config.

    Raises UsageError naming every typed setting that differs and may not, and TrainError for a
    damaged `config.json`.
    """
    run = Path(flags.config.run_folder)
    path = run / "config.json"
    if not path.exists():
        flags.problems.raise_all()
        if flags.extend:
            raise UsageError(f"--extend {flags.extend}: {run} contains no run; give it with --out")
        if not {"shards", "text", "source"} & set(flags.given):
            raise UsageError(
                f"--resume: {run} contains no run; give it with --out, or start one there with "
                "--shards"
            )
        return flags.config
    saved = from_json(read_sealed(path))
    # A run's own --name need not be typed again; that of another stage is a wrong folder.
    if "name" not in flags.given and saved.name in {*STAGES} - {flags.config.name}:
        raise UsageError(
            f"{run} contains a run of {saved.name}, not of {flags.config.name}; "
            f"resume it with python -m ocrtrain.{saved.name}, or give another folder with --out"
        )
    typed = {name: value for name, value in flags.given.items() if name != "out"}
    if typed.get("vocab_size") == 0:
        del typed["vocab_size"]  # 0 means "the tokenizer's", which is what the run has
    if "tokenizer" in typed and _is_own_tokenizer(run, saved, typed["tokenizer"]):
        del typed["tokenizer"]
    lengths = [(one.old, one.new) for one in read_changes(run) if one.field == "steps"]
    if typed.get("steps") in [saved.steps, *(old for old, _ in lengths)]:
        del typed["steps"]  # the run was made longer since it was started so
    if "steps" in typed:
        raise UsageError(
            f"--steps {typed['steps']}: {run} has {saved.steps} steps; make it longer with --extend"
        )
    if flags.extend:
        typed = {**_extension(flags, run, saved, lengths), **typed}
    # The saved --stop-at has served its purpose; only a new one counts.
    wanted = override(saved, {"stop_at": 0, **typed})
    changed = differences(saved, wanted)
    if changed:
        raise UsageError(
            f"{run} was started with different settings ({'; '.join(changed)}); leave them out to "
            "resume the run, choose another --out, or start a new run from its weights with --init"
        )
    return override(wanted, {"out": flags.config.run_folder})


def _is_own_tokenizer(run: Path, saved: Config, name: str) -> bool:
    """Whether a typed tokenizer is the run's: by its name, or wherever its file is."""
    if name == saved.tokenizer_name:
        return True
    if name != BYTES and not Path(name).exists():
        raise UsageError(
            f"--tokenizer: {saved.tokenizer_name} in the run, {name} given, which does not exist; "
            "leave it out to resume the run, or choose another --out"
        )
    own = load_tokenizer(run / "tokenizer.json")
    return load_tokenizer(name).fingerprint == own.fingerprint


def _extension(
    flags: ParsedFlags, run: Path, saved: Config, lengths: Sequence[tuple[int, int]]
) -> dict[str, int]:
    """The number of steps with --extend, and the step at which the schedule begins. `lengths` are
    the changes of the number of steps so far.

    The same extension typed again before its last step is the one under way: a job that is started
    again by a script does not extend the run twice.
    """
    step, steps = 0, saved.steps
    for folder in checkpoint.complete_checkpoints(run)[-1:]:
        found = Checkpoint.open(folder)
        step, steps = found.state.step, found.config.steps
    if lengths and lengths[-1] == (steps - flags.extend, steps) and step < steps:
        return {"steps": steps}
    return {"steps": steps + flags.extend, "schedule_from": step}


def newest(run: Path) -> Checkpoint | None:
    """The newest checkpoint of a run; None before its first."""
    found = checkpoint.complete_checkpoints(run)
    if not found:
        print(f"{run}: no complete checkpoint yet: starting at step 0")
        return None
    return Checkpoint.open(found[-1])


def check_checkpoint(run: Path, found: Checkpoint, config: Config, skipped: SkippedSamples) -> None:
    """Check that a checkpoint belongs to this run, by its config, the last batch it was trained on
    and the number of samples skipped before it. Raises TrainError.
    """
    reasons = differences(found.config, config)
    state = found.state
    recorded = batch_log.identity_at(run, state.step - 1) if state.step else ""
    if not reasons and state.identity != recorded:
        reasons = [
            f"its last batch is {state.identity}, but {batch_log.FILE} has {recorded or 'none'} "
            f"for step {state.step - 1}"
        ]
    if not reasons and skipped.before(state.step) != state.skipped:
        reasons = [
            f"{state.skipped} samples were skipped before it, but {SKIPPED_FILE} lists "
            f"{skipped.before(state.step)}"
        ]
    if reasons:
        raise TrainError(
            f"{found.folder} is not a checkpoint of this run: {'; '.join(reasons)[:500]}; remove "
            "it to resume from an earlier one, or restore the run's own files"
        )


def check_extension(found: Checkpoint, config: Config, planned: RunPlan, last: int) -> None:
    """Check that a run with more steps than its checkpoint has does get some: its plan may end at
    step `last`, before those of `config`, with a source. Raises UsageError."""
    if found.config.steps < config.steps > last <= found.state.step:
        ended = planned.plan.sources[planned.plan.ended_by].name
        raise UsageError(
            f"{ended} is exhausted at step {last}, so there are no more steps to train; repeat it "
            "with --at-end repeat, or give other data with --new-data"
        )
