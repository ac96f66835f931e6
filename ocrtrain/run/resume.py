"""Resuming a run: which settings may change, its newest checkpoint, and whether the two belong to
the same run. Writes no file.
"""

from __future__ import annotations

from pathlib import Path

from ocrdata.errors import TrainError, UsageError
from ocrtrain.data.skipped import FILE as SKIPPED_FILE
from ocrtrain.data.skipped import SkippedSamples
from ocrtrain.run import batch_log
from ocrtrain.settings.config import Config, differences, from_json
from ocrtrain.settings.flags import ParsedFlags, override, value_of
from ocrtrain.settings.presets import STAGES
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
        return flags.config
    saved = from_json(read_sealed(path))
    # A run's own --name need not be typed again; that of another stage is a wrong folder.
    if "name" not in flags.given and saved.name in {*STAGES} - {flags.config.name}:
        raise UsageError(
            f"{run} contains a run of {saved.name}, not of {flags.config.name}; "
            f"resume it with python -m ocrtrain.{saved.name}, or give another folder with --out"
        )
    typed = {name: value_of(flags.config, name) for name in flags.given if name != "out"}
    if typed.get("vocab_size") == 0:
        del typed["vocab_size"]  # 0 means "the tokenizer's", which is what the run has
    if typed.get("tokenizer") == saved.tokenizer_name:
        typed.pop("tokenizer", None)  # the run's own, by its name instead of by default
    # The saved --stop-at has served its purpose; only a new one counts.
    wanted = override(saved, {"stop_at": 0, **typed})
    changed = differences(saved, wanted)
    if changed:
        raise UsageError(
            f"{run} was started with different settings:\n  " + "\n  ".join(changed) + "\n"
            "  leave them out to resume the run, or choose another --out"
        )
    return override(wanted, {"out": flags.config.run_folder})


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
