"""Which answers are the worst."""

from __future__ import annotations

from typing import Any

from ocrtrain.evaluation.worst import badness, worst_answers


def line(source: str, ned: float, relaxed: bool = False) -> dict[str, Any]:
    return {"source": source, "scores": {"relaxed": relaxed, "ned": ned}}


def measured(name: str, values: list[list[Any]]) -> dict[str, Any]:
    return {**line("s", 0.5), "benchmark": {"name": name, "values": values}}


def test_badness_is_that_of_the_benchmarks_first_measure() -> None:
    assert badness(line("s", 0.3)) == 0.3 and badness(line("s", 0.3, relaxed=True)) == 0.0
    assert badness(measured("docvqa", [["ANLS", 0.75, {}]])) == 0.25
    assert badness(measured("ocrbench", [["contains the answer", 1.0, {}]])) == 0.0
    assert badness(measured("docvqa", [])) == 0.0


def test_the_worst_come_first_and_sources_take_turns() -> None:
    lines = [line("a", at / 100) for at in range(1, 90)] + [line("b", 0.2), line("b", 0.1, True)]
    found = worst_answers(lines, 5)
    assert [(one["source"], one["scores"]["ned"]) for one in found] == [
        ("a", 0.89), ("b", 0.2), ("a", 0.88), ("a", 0.87), ("a", 0.86),
    ]  # fmt: skip
    assert worst_answers([line("a", 0.0)]) == []
