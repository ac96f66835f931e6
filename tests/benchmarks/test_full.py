"""The benchmark of the full model, at toy size; and what it measured against today's forecast."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.full import PARTS, main


def test_every_part_has_its_speed_and_its_memory_beside_the_forecast(tmp_path: Path) -> None:
    out = tmp_path / "full.json"
    main(["--toy", "--steps", "2", "--out", str(out)])
    parts = {part["part"]: part for part in json.loads(out.read_text())["parts"]}
    assert list(parts) == list(PARTS)
    for name, part in parts.items():
        assert part["steps"] == len(part["each_step"]) == 2, name
        assert part["samples_per_s"] > 0 and part["samples_per_cpu_s"] > 0, name
        assert part["GFLOP_per_s"] > 0, name
        assert part["peak_GB"] >= part["start_GB"] > 0 and part["forecast_GB"] > 0.6, name
    assert [step["samples"] for step in parts["stage 1"]["each_step"]] == [2, 2]
    assert max(step["samples"] for step in parts["stage 2, packed"]["each_step"]) > 1
    assert parts["stage 2"]["each_step"][0]["images"] == 2
