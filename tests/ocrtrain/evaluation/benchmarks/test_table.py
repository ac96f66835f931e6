"""The table of a benchmark from lines of the answers file."""

from __future__ import annotations

from typing import Any

import pytest

from ocrtrain.evaluation.benchmarks.base import Benchmark, Gold, Measure, Measured
from ocrtrain.evaluation.benchmarks.table import BenchmarkTable, natural


def measure(answer: str, gold: Gold) -> Measured:
    return Measured(())


def benchmark(macro: str = "", has_gold_text: bool = True) -> Benchmark:
    return Benchmark(
        "mine", "Mine", "3.1", "arXiv 1", "case ignored", "measure and layout: by hand",
        (Measure("accuracy"), Measure("distance", percent=False, lower=True), Measure("unused")),
        measure, macro, has_gold_text,
    )  # fmt: skip


def line(key: int, values: list[list[Any]], **more: Any) -> dict[str, Any]:
    return {
        "source": "s", "shard": "s-000.tar", "key": f"{key:09d}", "finished": True,
        "repeats": False, "scores": {"length": 4, "gold_length": 6},
        "benchmark": {"name": "mine", "values": values}, **more,
    }  # fmt: skip


def test_means_intervals_groups_and_what_is_left_out() -> None:
    table = BenchmarkTable(benchmark())
    for key in range(20):
        kinds = {"type": ["form", "table"] if key == 0 else ["form"]}
        values = [["accuracy", float(key < 15), kinds], ["distance", key / 20, kinds]]
        swapped = {"benchmark": {"values": [["accuracy", 0.0, kinds]]}}
        table.add(line(key, values, exchanged=swapped))
    left_out = {"name": "mine", "values": [], "left_out": {"math tests": 2}}
    table.add(line(20, [], benchmark=left_out, finished=False))
    summary = table.summary()
    assert (summary["questions"], summary["samples"], summary["cut_off"]) == (21, 21, 1)
    accuracy = summary["scores"]["accuracy"]
    assert accuracy["mean"] == 0.75 and accuracy["number"] == 20
    assert (accuracy["low"], accuracy["high"]) == pytest.approx((0.5313, 0.8881), abs=1e-4)
    assert summary["groups"]["type"]["table"]["accuracy"]["number"] == 1
    assert summary["groups"]["type"]["form"]["accuracy"]["number"] == 20
    assert summary["left_out"] == {"math tests": 2}
    assert summary["exchanged"]["accuracy"]["mean"] == 0.0
    assert "unused" not in summary["scores"]
    text = table.table()
    parts = [
        "Mine, 3.1", "75.0% [53.1% 88.8% w] 20", "type: table", "case ignored", "arXiv 1",
        "left out: 2 math tests", "swapped images: accuracy 0.0%", "0.475 [", "seed",
        "distance (less is better)", "4.0 characters", "gold answers 6.0",
    ]  # fmt: skip
    for part in parts:
        assert part in text, part


def test_a_macro_mean_weighs_the_parts_of_its_division() -> None:
    table = BenchmarkTable(benchmark("file", has_gold_text=False))
    for key in range(10):
        table.add(line(key, [["accuracy", 1.0, {"file": ["a"]}]] * 3))
    table.add(line(10, [["accuracy", 0.0, {"file": ["b"]}]]))
    scores = table.summary()["scores"]["accuracy"]
    assert scores["mean"] == 0.5 and scores["number"] == 31
    assert "gold answers" not in table.table() and "gold_length" not in table.summary()


def test_numbers_are_sorted_by_their_value() -> None:
    parts = ["1,000 to 1,099", "b", "900 to 999", "a"]
    assert natural(parts) == ["900 to 999", "1,000 to 1,099", "a", "b"]
