"""Which questions were answered without looking: right although the images were another sample's.

In: lines of the answers file of an evaluation that swapped images. Out: how many, and which. Some
are right by chance, as of yes and no one in two is; a question that many models answer without
looking is a bad question.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

LISTED = 50
"""Questions in the summary, those with the smallest gain."""


def is_right(line: Mapping[str, Any]) -> bool | None:
    """Whether an answer counts as right: by its benchmark if it has one, else by relaxed accuracy;
    None where the benchmark has no right answers. `line` is one of the file, or its `exchanged`."""
    if "benchmark" in line:
        right: bool | None = line["benchmark"].get("right")
        return right
    return bool(line["scores"]["relaxed"])


def answered_without_looking(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The number of questions asked with swapped images, those right anyway, and the gains; None if
    no question was asked so."""
    asked, right, gains = 0, [], []
    for line in lines:
        swapped = line.get("exchanged")
        verdict = None if swapped is None else is_right(swapped)
        if swapped is None or verdict is None:
            continue
        asked += 1
        if "gain" in line:
            gains.append(line["gain"])
        if verdict:
            names = ("source", "shard", "key", "turn", "kind", "question", "gold", "gain")
            found = {name: line[name] for name in names if name in line}
            right.append(found | {"answer": swapped["answer"], "shown": swapped["key"]})
    if not asked:
        return None
    right.sort(key=lambda one: one.get("gain", 0.0))
    summary: dict[str, Any] = {"asked": asked, "right": len(right), "questions": right[:LISTED]}
    if gains:
        summary["median_gain"] = statistics.median(gains)
        summary["without_gain"] = sum(gain <= 0 for gain in gains)
    return summary


def looking_lines(summary: Mapping[str, Any]) -> str:
    """The summary for the console, without the list of questions."""
    text = (
        f"without looking: {summary['right']:,} of {summary['asked']:,} answers are right with "
        "another sample's images"
    )
    if "median_gain" in summary:
        text += (
            f"; the right image is worth {summary['median_gain']:+.3f} nats a token in the median, "
            f"nothing in {summary['without_gain']:,} questions"
        )
    return text
