"""The benchmarks by the name that samples carry in `meta.benchmark.name`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from ocrdata.errors import RejectedRow, UsageError
from ocrtrain.evaluation.benchmarks import (
    chartqa,
    chartqapro,
    docvqa,
    fox,
    infographicvqa,
    ocrbench,
    olmocr_bench,
    omnidocbench,
    textvqa,
)
from ocrtrain.evaluation.benchmarks.base import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    one.name: one
    for one in (
        chartqa.BENCHMARK,
        chartqapro.BENCHMARK,
        docvqa.BENCHMARK,
        infographicvqa.BENCHMARK,
        textvqa.BENCHMARK,
        ocrbench.BENCHMARK,
        fox.BENCHMARK,
        olmocr_bench.BENCHMARK,
        omnidocbench.BENCHMARK,
    )
}

META = "benchmark"
"""The field of a sample's meta: an object with `name`, and `facts` for each turn."""


def benchmark_of(meta: Mapping[str, Any]) -> Benchmark | None:
    """The benchmark that a sample belongs to; None if it names none. Raises RejectedRow for a name
    that is not known, so that no answer is scored by something else without a word, and UsageError
    if a package is missing that its measure needs."""
    value = meta.get(META)
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str):
        return None
    if name not in BENCHMARKS:
        known = ", ".join(BENCHMARKS)
        raise RejectedRow(f"meta.benchmark.name is {name!r:.60}; known are {known}")
    found = BENCHMARKS[name]
    missing = [package for package in found.packages if find_spec(package) is None]
    if missing:
        raise UsageError(
            f"{name}: its measure needs {' and '.join(missing)}: pip install '.[benchmarks]'"
        )
    return found


def facts_of(meta: Mapping[str, Any], turns: int) -> list[Mapping[str, Any]]:
    """The facts of each turn; empty ones where the sample has none. Raises RejectedRow if they are
    not an object for each turn."""
    value = meta.get(META)
    facts = value.get("facts") if isinstance(value, dict) else None
    if facts is None:
        return [{}] * turns
    if (
        not isinstance(facts, list)
        or len(facts) != turns
        or not all(isinstance(one, dict) for one in facts)
    ):
        raise RejectedRow(f"meta.benchmark.facts must have an object for each of {turns} turns")
    return facts
