"""The way of attention of a run with `--attention auto`, and `attention.json`, which says why.

On a CPU, and where rows are not packed, it is sdpa. On a GPU the ways are timed once, when the run
begins, on rows such as the plan has; the choice is written with the times into the run folder, and
a resumed run on a GPU keeps it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ocrdata.errors import TrainError
from ocrtrain.data.run_plan import RunPlan
from ocrtrain.model.attention import WAYS, Lengths
from ocrtrain.model.attention_trial import try_ways
from ocrtrain.model.device import autocast_type
from ocrtrain.settings.config import Config
from ocrtrain.state.run_files import read_sealed, write_sealed

FILE = "attention.json"
VERSION = 1


def choose_attention(
    config: Config, planned: RunPlan, run: Path, device: torch.device, *, resumed: bool
) -> tuple[str, str]:
    """The way of attention of a run, and a line that says why, or "". Writes `attention.json` after
    a trial. Raises TrainError for a file that is not intact."""
    if config.attention != "auto":
        return config.attention, ""
    if device.type != "cuda" or not config.pack:
        return "sdpa", ""
    name = torch.cuda.get_device_name(device)
    if resumed and (run / FILE).exists():
        found = read_choice(run)
        return found["chosen"], f"attention: {found['chosen']}, chosen on {found['device']}"
    lengths = typical_rows(config, planned)
    dtype = autocast_type(config.precision, device)
    trial = try_ways(config.model, lengths, device=device, dtype=dtype)
    if not trial.seconds:
        raise TrainError(f"no way of attention works on {name}: {trial.unusable}")
    write_choice(
        run,
        {
            "chosen": trial.fastest,
            "seconds": trial.seconds,
            "unusable": trial.unusable,
            "device": name,
            "torch": torch.__version__,
            "dtype": str(dtype or torch.float32),
            "lengths": lengths,
        },
    )
    times = ", ".join(f"{way} {1e3 * took:.3g} ms" for way, took in trial.seconds.items())
    failed = "".join(f"; {way} cannot be used: {why}" for way, why in trial.unusable.items())
    return trial.fastest, f"attention: {trial.fastest} ({times} a layer{failed})"


def typical_rows(config: Config, planned: RunPlan) -> Lengths:
    """Rows of a pass as long as the longest of the plan, of samples of its mean length."""
    totals = planned.totals
    mean = max(1, min(totals.longest, round(totals.sums.tokens / max(1, totals.sums.samples))))
    row = (mean,) * (totals.longest // mean)
    rest = totals.longest - sum(row)
    return ((*row, rest) if rest else row,) * config.rows_per_pass


def read_choice(run: Path) -> dict[str, Any]:
    """What `attention.json` of a run says. Raises TrainError where it is not intact."""
    found = read_sealed(run / FILE)
    if found.get("version") != VERSION or found.get("chosen") not in WAYS:
        raise TrainError(
            f"{run / FILE}: version {found.get('version')}, attention {found.get('chosen')!r}: not "
            "of this release; delete it to choose anew"
        )
    return found


def write_choice(run: Path, found: dict[str, Any]) -> None:
    """Write `attention.json` of a run. Raises DiskError."""
    write_sealed(run / FILE, {"version": VERSION, **found})
