"""plan.json: one part as older releases wrote it, several with the settings of their time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ocrdata.errors import TrainError
from ocrtrain.data.plan_file import PlanPart, part_at, read_parts, write_parts
from ocrtrain.state.run_files import read_sealed, write_sealed


def test_one_part_is_written_as_older_releases_did(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_parts(path, [PlanPart(0, {"version": 2, "batch": 4})], {"tokens": 9})
    assert read_sealed(path) == {"version": 2, "batch": 4, "figures": {"tokens": 9}}
    [part] = read_parts(path)
    assert (part.start, part.recipe["batch"], part.config) == (0, 4, None)


def test_parts_come_back_and_make_their_own_steps(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    parts = [
        PlanPart(0, {"batch": 4}, {"lr": 1}),
        PlanPart(6, {"batch": 5}, {"lr": 2}),
        PlanPart(9, {"batch": 6}),
    ]
    write_parts(path, parts, {})
    assert read_parts(path) == parts
    found = [part_at(parts, step).recipe["batch"] for step in range(11)]
    assert found == [4] * 6 + [5] * 3 + [6] * 2
    assert part_at(parts, -1).start == 0


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [{"start": 3, "plan": {}}],
        [{"start": 0, "plan": {}, "config": {"lr": 1}}, {"start": 0, "plan": {}}],
        [{"start": 0, "plan": {}}, {"start": 4, "plan": {}}],
        [{"plan": {}}],
    ],
)
def test_parts_that_do_not_follow_each_other_are_refused(tmp_path: Path, parts: Any) -> None:
    path = tmp_path / "plan.json"
    write_sealed(path, {"version": 3, "parts": parts, "figures": {}})
    with pytest.raises(TrainError, match=r"plan\.json: "):
        read_parts(path)
