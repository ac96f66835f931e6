"""The worst answers of an evaluation: what to look at first.

In: lines of the answers file. Out: a bounded number of them, by badness. An answer to a benchmark's
question is as bad as the benchmark's first measure says, any other as bad as its edit distance, if
it is not right by relaxed accuracy. Of equally bad ones those with the larger edit distance come
first, and no source fills the page alone: they take turns.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import chain, zip_longest
from typing import Any

from ocrtrain.evaluation.benchmarks.registry import BENCHMARKS

SHOWN = 40
"""Answers on the page: with their images at most about 4 MB."""

Line = Mapping[str, Any]


def badness(line: Line) -> float:
    """From 0, right, to 1."""
    benchmark = line.get("benchmark")
    if benchmark is None:
        return 0.0 if line["scores"]["relaxed"] else float(line["scores"]["ned"])
    column = BENCHMARKS[benchmark["name"]].columns[0]
    values = [value for name, value, _ in benchmark["values"] if name == column.name]
    if not values:
        return 0.0
    mean = sum(values) / len(values)
    return float(mean if column.lower else 1 - mean)


def worst_answers(lines: Iterable[Line], count: int = SHOWN) -> list[Line]:
    """At most `count` answers that are not right, the sources taking turns, the worst first. Holds
    that many lines a source in memory."""
    heaps: dict[str, list[tuple[float, float, int, Line]]] = defaultdict(list)
    for number, line in enumerate(lines):
        bad = badness(line)
        if bad > 0:
            entry = (bad, line["scores"]["ned"], -number, line)
            heap = heaps[line["source"]]
            if len(heap) < count:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)
    sorted_lines = [[entry[3] for entry in sorted(heap, reverse=True)] for heap in heaps.values()]
    turns = chain.from_iterable(zip_longest(*sorted_lines))
    return [line for line in turns if line is not None][:count]
