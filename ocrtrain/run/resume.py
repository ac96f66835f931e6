"""Going on with a run: its settings, its newest checkpoint, and that the two are of one run.

Owner of what may be typed anew at a resume and what may not. It reads, and changes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ocrdata.errors import TrainError, UsageError
from ocrtrain.data import skipped as bad_samples
from ocrtrain.data.skipped import SkippedSamples
from ocrtrain.run import batch_log
from ocrtrain.settings.config import Config, differences, from_json
from ocrtrain.settings.flags import ParsedFlags, override
from ocrtrain.state import checkpoint
from ocrtrain.state.checkpoint import Checkpoint
from ocrtrain.state.run_files import read_sealed


def resumed_config(asked: ParsedFlags) -> Config:
    """The config of the run in --out, with what may change taken from the command line.

    Raises UsageError naming every setting that was typed and differs, TrainError where
    `config.json` is damaged.
    """
    run = Path(asked.config.run_folder)
    path = run / "config.json"
    if not path.exists():
        return asked.config
    saved = from_json(read_sealed(path))
    if saved.name != asked.config.name:
        raise UsageError(
            f"{run} holds a run of {saved.name}, not of {asked.config.name}; "
            "name the folder of the run to go on with by --out"
        )
    typed = {name: _value(asked.config, name) for name in asked.given if name != "out"}
    if typed.get("vocab_size") == 0:
        del typed["vocab_size"]  # "the tokenizer's", which is what the run has
    # A stop that was asked for once was had; only a new one counts.
    wanted = override(saved, {"stop_at": 0, **typed})
    changed = differences(saved, wanted)
    if changed:
        raise UsageError(
            f"{run} was started with other settings:\n  " + "\n  ".join(changed) + "\n"
            "  leave them out to go on with the run, or choose another --out"
        )
    return override(wanted, {"out": asked.config.run_folder})


def _value(config: Config, name: str) -> Any:
    """A setting by its name, wherever it is."""
    return getattr(config if hasattr(config, name) else config.model, name)


def newest(run: Path) -> Checkpoint | None:
    """The newest checkpoint of a run, None before its first."""
    found = checkpoint.complete_checkpoints(run)
    if not found:
        print(f"{run}: no complete checkpoint yet: starting at step 0")
        return None
    return Checkpoint.open(found[-1])


def check_checkpoint(run: Path, found: Checkpoint, config: Config, bad: SkippedSamples) -> None:
    """Whether a checkpoint is this run's: its config, the last batch it was trained on, and the
    samples that were skipped by then.

    Raises TrainError.
    """
    reasons = differences(found.config, config)
    state = found.state
    recorded = batch_log.identity_at(run, state.step - 1) if state.step else ""
    if not reasons and state.identity != recorded:
        reasons = [
            f"its last batch is {state.identity}, {batch_log.FILE} has {recorded or 'none'} for "
            f"step {state.step - 1}"
        ]
    if not reasons and bad.before(state.step) != state.skipped:
        reasons = [
            f"{state.skipped} samples were skipped before it, {bad_samples.FILE} has "
            f"{bad.before(state.step)} of them"
        ]
    if reasons:
        raise TrainError(
            f"{found.folder}: is not a checkpoint of this run: {'; '.join(reasons)[:500]}; remove "
            "it to resume from an earlier one, or put the run's own files back"
        )
