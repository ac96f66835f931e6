"""`plan.json` of a run: the recipe of its plan, in parts.

A run has one part, and another from each step at which its data, their weights or its batch were
changed. A part is a plan of its own whose step 0 is the run's step `start`; the batch of a step is
made by the last part that begins at or before it. In: a file of any release. Out: its parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ocrdata.errors import TrainError
from ocrtrain.state.run_files import read_sealed, write_sealed

FILE = "plan.json"
VERSION = 3
"""Of a file with several parts. One part alone is written as older releases did: its recipe, which
has the version of plans."""


@dataclass(frozen=True)
class PlanPart:
    """A part of a run's plan: its first step and its recipe. `config` has the settings of a part
    that is over, as JSON values; those of the last part are the run's."""

    start: int = 0
    recipe: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None


def read_parts(path: Path) -> list[PlanPart]:
    """The parts of a run's plan, in order. Raises TrainError where the file is not intact."""
    value = read_sealed(path)
    if value.get("version") != VERSION:
        return [PlanPart(recipe=value)]
    try:
        parts = [PlanPart(one["start"], one["plan"], one.get("config")) for one in value["parts"]]
        starts = [part.start for part in parts]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(f"its parts begin at steps {starts}")
        if any(part.config is None for part in parts[:-1]):
            raise ValueError("a part that is over has no settings")
    except (KeyError, TypeError, ValueError) as exc:
        raise TrainError(f"{path}: not in the format of this release: {exc!r}") from exc
    return parts


def part_at(parts: Sequence[PlanPart], step: int) -> PlanPart:
    """The part that makes the batch of a step."""
    return next(part for part in reversed(parts) if part.start <= step or not part.start)


def write_parts(path: Path, parts: Sequence[PlanPart], figures: Mapping[str, Any]) -> None:
    """Write the parts of a plan, with the figures of the last one. Raises DiskError."""
    if len(parts) == 1:
        write_sealed(path, {**parts[0].recipe, "figures": figures})
        return
    documents = [
        {"start": one.start, "plan": one.recipe, **({"config": one.config} if one.config else {})}
        for one in parts
    ]
    write_sealed(path, {"version": VERSION, "parts": documents, "figures": figures})
