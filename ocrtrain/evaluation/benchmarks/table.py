"""The answers to one benchmark -> means with confidence intervals, and the table of them.

In: lines of the answers file, as they were measured. Out: a summary of JSON values and its text. No
answer is measured again, so that the table follows from the file alone.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from ocrtrain.evaluation.benchmarks.base import Benchmark, Measure
from ocrtrain.evaluation.confidence import (
    BOOTSTRAP_SEED,
    RESAMPLES,
    Interval,
    interval,
    mean_of_strata,
)

ALL = "all"
Row = tuple[str, str]
"""A division and one of its parts, or ALL and ''."""

_Values = dict[Any, list[float]]


class BenchmarkTable:
    """Collects the answers to one benchmark."""

    def __init__(self, benchmark: Benchmark) -> None:
        self.benchmark = benchmark
        self._values: dict[Row, dict[str, _Values]] = {}
        self._swapped: dict[str, _Values] = defaultdict(dict)
        self._lengths: list[tuple[int, int]] = []
        self._samples: set[Any] = set()
        self._left_out: Counter[str] = Counter()
        self._cut_off = self._repeating = 0

    def add(self, line: Mapping[str, Any]) -> None:
        """Add a line of the answers file."""
        sample = (line.get("source"), line["shard"], line["key"])
        self._samples.add(sample)
        self._repeating += line["repeats"]
        self._cut_off += not (line["finished"] or line["repeats"])
        self._lengths.append((line["scores"]["length"], line["scores"]["gold_length"]))
        self._left_out.update(line["benchmark"].get("left_out", {}))
        for measure, value, groups in line["benchmark"]["values"]:
            rows = [(ALL, "")] + [(name, part) for name, of in groups.items() for part in of]
            for row in rows:
                by_measure = self._values.setdefault(row, {})
                by_measure.setdefault(measure, {}).setdefault(sample, []).append(value)
        for measure, value, _ in line.get("exchanged", {}).get("benchmark", {}).get("values", ()):
            self._swapped[measure].setdefault(sample, []).append(value)

    def summary(self) -> dict[str, Any]:
        """What the table shows, as JSON values."""
        one = self.benchmark
        found: dict[str, Any] = {
            "benchmark": one.name,
            "title": one.title,
            "version": one.version,
            "definition": one.definition,
            "normalisation": one.normalisation,
            "checked": one.checked,
            "questions": len(self._lengths),
            "samples": len(self._samples),
            "scores": self._scores((ALL, "")),
            "groups": {
                name: {part: self._scores((name, part)) for part in natural(parts)}
                for name, parts in self._divisions().items()
            },
            "length": _mean([length for length, _ in self._lengths]),
            "left_out": dict(self._left_out),
            "cut_off": self._cut_off,
            "repeating": self._repeating,
        }
        if one.has_gold_text:
            found["gold_length"] = _mean([length for _, length in self._lengths])
        if self._swapped:
            found["exchanged"] = {
                measure: interval(values)._asdict() for measure, values in self._swapped.items()
            }
        return found

    def table(self) -> str:
        """The summary for the console."""
        summary, one = self.summary(), self.benchmark
        columns = [column for column in one.columns if column.name in summary["scores"]]
        rows = {"all": summary["scores"]}
        for name, parts in summary["groups"].items():
            rows |= {f"{name}: {part}": scores for part, scores in parts.items()}
        heads = [
            f"{column.name}{' (less is better)' if column.lower else ''}" for column in columns
        ]
        cells = [
            [label, *(_cell(scores.get(column.name), column) for column in columns)]
            for label, scores in rows.items()
        ]
        lines = [f"{one.title}, {one.version}: {_counts(summary)}", *_aligned(["", *heads], cells)]
        if "exchanged" in summary:
            shown = ", ".join(
                f"{column.name} {_number(summary['exchanged'][column.name]['mean'], column)}"
                for column in columns
                if column.name in summary["exchanged"]
            )
            lines.append(f"with swapped images: {shown}")
        lengths = f"answers have {summary['length']:.1f} characters on average"
        if one.has_gold_text:
            lengths += f", gold answers {summary['gold_length']:.1f}"
        lines += [
            lengths,
            *(f"left out: {count:,} {why}" for why, count in summary["left_out"].items()),
            f"compared: {one.normalisation}",
            f"defined by: {one.definition}",
            f"checked: {one.checked}",
            "in brackets: 95 % intervals, Wilson's (w) or by bootstrap over samples (b, "
            f"{RESAMPLES:,} draws, seed {BOOTSTRAP_SEED}); after them the number of values",
        ]
        for count, why in (
            (self._cut_off, "cut off (--max-new-tokens)"),
            (self._repeating, "stopped in a loop (--stop-repeats)"),
        ):
            if count:
                lines.append(f"{count:,} of {len(self._lengths):,} answers were {why}")
        return "\n".join(lines)

    def _divisions(self) -> dict[str, list[str]]:
        """The parts of each division that has any."""
        found: dict[str, list[str]] = {}
        for name, part in self._values:
            if name != ALL:
                found.setdefault(name, []).append(part)
        return found

    def _scores(self, row: Row) -> dict[str, dict[str, Any]]:
        """By measure, in the order of the columns."""
        found = {}
        for column in self.benchmark.columns:
            values = self._values.get(row, {}).get(column.name)
            if values:
                found[column.name] = self._interval(row, column, values)._asdict()
        return found

    def _interval(self, row: Row, column: Measure, values: _Values) -> Interval:
        macro = self.benchmark.macro
        parts = self._divisions().get(macro, []) if row == (ALL, "") else []
        strata = [self._values[macro, part].get(column.name, {}) for part in sorted(parts)]
        strata = [values for values in strata if values]
        return mean_of_strata(strata) if strata else interval(values)


def natural(parts: Iterable[str]) -> list[str]:
    """Sorted, with numbers by their value: 900 before 1,000."""

    def key(part: str) -> list[tuple[int, str]]:
        words = re.split(r"([0-9]+)", part.replace(",", ""))
        return [(int(word), "") if word.isdigit() else (0, word) for word in words]

    return sorted(parts, key=key)


def _mean(numbers: list[int]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0


def _counts(summary: Mapping[str, Any]) -> str:
    questions, samples = summary["questions"], summary["samples"]
    return f"{questions:,} answers to {samples:,} sample{'' if samples == 1 else 's'}"


def _number(value: float, column: Measure) -> str:
    return f"{value:.1%}" if column.percent else f"{value:.3f}"


def _cell(found: Mapping[str, Any] | None, column: Measure) -> str:
    """`81.2% [80.1% 82.3% w] 5,349`."""
    if found is None:
        return "-"
    mean, low, high = (_number(found[name], column) for name in ("mean", "low", "high"))
    return f"{mean} [{low} {high} {found['method'][0]}] {found['number']:,}"


def _aligned(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *rows]
    ]
