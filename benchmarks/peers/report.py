"""The outcomes of all rounds as tables: medians, one line per loader."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.peers.run import Outcome

Rounds = Mapping[str, Sequence[Outcome]]
"""Loader -> the outcomes of all its processes, over all rounds."""

Numbers = dict[str, Any]


def rate(row: Numbers) -> float:
    return float(row["samples"] / row["seconds"])


def megabytes(row: Numbers) -> float:
    return float(row["bytes"] / row["seconds"] / 1e6)


def seconds(row: Numbers) -> float:
    return float(row["seconds"])


def peak(row: Numbers) -> float:
    return float(row["pss"] / 1e6)


COLUMNS: dict[str, tuple[str, Callable[[Numbers], float], str]] = {
    "write, MB/s": ("write charts", megabytes, ",.0f"),
    "chats, MB/s": ("write chats", megabytes, ",.0f"),
    "raw, samples/s": ("raw charts", rate, ",.0f"),
    "chats, samples/s": ("raw chats", rate, ",.0f"),
    "raw, 2 workers": ("raw charts, workers", rate, ",.0f"),
    "memory, MB": ("memory", peak, ",.0f"),
    "first at 90 %, ms": ("first", lambda row: 1e3 * seconds(row), ",.1f"),
    "resume, ms": ("resume", lambda row: 1e3 * seconds(row), ",.0f"),
    "Pillow + pad, images/s": ("pixels usual", rate, ",.0f"),
    "our decode, images/s": ("pixels shipped", rate, ",.0f"),
    "silent of 200": ("flips", lambda row: float(row["silent"] + row["lost"]), ".0f"),
}
"""Heading -> the row it comes from, how to compute the number from it, and its format."""

LESS_IS_BETTER = ("memory, MB", "first at 90 %, ms", "resume, ms", "silent of 200")


def values(outcomes: Sequence[Outcome], heading: str) -> list[float]:
    """The numbers of all rounds for one column."""
    name, number, _ = COLUMNS[heading]
    return [number(outcome.rows[name]) for outcome in outcomes if name in outcome.rows]


def medians(rounds: Rounds) -> dict[str, dict[str, float]]:
    """Loader -> heading -> median; headings without numbers are left out."""
    return {
        loader: {
            heading: statistics.median(found)
            for heading in COLUMNS
            if (found := values(outcomes, heading))
        }
        for loader, outcomes in rounds.items()
    }


def lines(found: Mapping[str, Mapping[str, float]]) -> list[dict[str, object]]:
    """Rows for `benchmarks.common.table`: '-' for a missing number, a star at a column's best."""
    best = {}
    for heading in COLUMNS:
        numbers = [row[heading] for row in found.values() if heading in row]
        if numbers:
            best[heading] = min(numbers) if heading in LESS_IS_BETTER else max(numbers)
    headings = [heading for heading in COLUMNS if heading in best]

    def cell(row: Mapping[str, float], heading: str) -> str:
        if heading not in row:
            return "-"
        star = "*" if row[heading] == best[heading] else " "
        return f"{row[heading]:{COLUMNS[heading][2]}}{star}"

    return [
        {"loader": loader, **{heading: cell(row, heading) for heading in headings}}
        for loader, row in found.items()
    ]


def remarks(rounds: Rounds) -> list[str]:
    """What the table does not show: failures, and resumes at the wrong batch."""
    said = []
    for loader, outcomes in rounds.items():
        said += sorted({f"{loader}: {outcome.error}" for outcome in outcomes if outcome.error})
        resumed = [o.rows["resume"]["exact"] for o in outcomes if "resume" in o.rows]
        if not all(resumed):
            said.append(f"{loader}: resumed at another batch than the next one")
    return said
