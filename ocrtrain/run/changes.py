"""`changes.json` of a run: what was changed while it went on, and from which step.

At a resume, rates, batch, memory settings and data may change (`--extend` changes the number of
steps). `config.json` has the settings now in force, the changes say which ones were before. They
are found by comparing the settings of the checkpoint that the run goes on from with the new ones,
so that a process killed at any point leaves nothing to repair: changes that no checkpoint has
trained with are found again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ocrdata.errors import TrainError
from ocrtrain.data.continued_plan import DataChange
from ocrtrain.settings.config import Config
from ocrtrain.settings.fields import flag_name
from ocrtrain.settings.saved_config import compare, to_json
from ocrtrain.state.run_files import read_sealed, write_sealed

FILE = "changes.json"
VERSION = 1

LAST_BITS = ("micro_batch", "checkpointing", "precision", "attention")
"""Changed, these add the same numbers in another order or precision."""


@dataclass(frozen=True)
class Change:
    """From `step` on a setting has the value `new`, in place of `old`: JSON values, as config.json
    has them. `field` is that of a config, or train/NAME or val/NAME for a set of samples, whose
    values are its spec, size and digest (or None)."""

    step: int
    field: str
    old: Any
    new: Any

    def describe(self) -> str:
        """'at step 600: --lr 5e-05 -> 1e-05'."""
        if "/" not in self.field:
            return f"at step {self.step:,}: {flag_name(self.field)} {self.old} -> {self.new}"
        role, _, name = self.field.partition("/")
        what = "trained on" if role == "train" else "validated on"
        return f"at step {self.step:,}: {name} {what}: {_shown(self.old)} -> {_shown(self.new)}"


def _shown(value: Mapping[str, Any] | None) -> str:
    return "nothing" if value is None else f"{value['size']:,} samples of {value['spec']}"


def read_changes(run: Path) -> list[Change]:
    """The changes of a run, oldest first; none if nothing was changed. Raises TrainError where the
    file is not intact."""
    path = run / FILE
    if not path.exists():
        return []
    value = read_sealed(path)
    try:
        if value["version"] != VERSION:
            raise ValueError(f"version {value['version']} was written by another release")
        return [Change(**one) for one in value["changes"]]
    except (KeyError, TypeError, ValueError) as exc:
        raise TrainError(f"{path}: not in the format of this release: {exc!r}") from exc


def find_changes(
    earlier: Sequence[Change],
    step: int,
    before: Config,
    now: Config,
    data: Sequence[DataChange] = (),
) -> tuple[list[Change], list[Change]]:
    """All changes of a run that goes on from the checkpoint of `step`, whose config is `before`,
    and those of them that are made now. What was recorded for this step or a later one has trained
    nothing that is kept: it is found again, or no longer wanted."""
    old, new = to_json(before), to_json(now)
    made = [
        Change(step, one.name, old[one.name], new[one.name])
        for one in compare(before, now)
        if one.field.metadata["change"]
    ]
    made += [Change(step, f"{one.role}/{one.name}", one.old, one.new) for one in data]
    return [one for one in earlier if one.step < step] + made, made


def write_changes(run: Path, changes: Sequence[Change]) -> None:
    """Write the changes of a run; a run without any has no file. Raises DiskError."""
    if changes or (run / FILE).exists():
        write_sealed(run / FILE, {"version": VERSION, "changes": [asdict(one) for one in changes]})


def describe_changes(made: Sequence[Change]) -> list[str]:
    """What a run that goes on does otherwise from here on, as lines for a terminal."""
    lines = [f"changed {one.describe()}" for one in made]
    if names := [flag_name(one.field) for one in made if one.field in LAST_BITS]:
        lines.append(f"losses may differ in the last bits from here on: {', '.join(names)}")
    return lines
