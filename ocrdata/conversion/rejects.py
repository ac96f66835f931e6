"""Rejected rows and damaged images: the files that list them, and summaries of the reasons."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ocrdata.storage.files import atomic_file, explain_disk
from ocrdata.storage.sealed import canonical

Reject = tuple[int, str]
"""(origin row, reason)"""

Damage = tuple[int, int, str]
"""(origin row, number of the image in it, what the decoder says)"""


def rejects_path(out: Path, name: str) -> Path:
    """NAME.rejects.jsonl: a line `{"reason": ..., "row": ...}` for each; absent without any."""
    return out / f"{name}.rejects.jsonl"


def damaged_path(out: Path, name: str) -> Path:
    """NAME.damaged.jsonl: a line `{"image": ..., "reason": ..., "row": ...}` for each damaged image
    that was kept; absent without any."""
    return out / f"{name}.damaged.jsonl"


def report_path(out: Path, name: str, report: str) -> Path:
    """NAME.REPORT.jsonl: a report of the source; absent without lines."""
    return out / f"{name}.{report}.jsonl"


def write_rejects(path: Path, rejects: Sequence[Reject]) -> None:
    """Write rejects in row order, atomically; without any, remove the file."""
    write_lines(path, [{"row": row, "reason": reason} for row, reason in rejects])


def write_damaged(path: Path, damaged: Sequence[Damage]) -> None:
    """Write damaged images in row order, atomically; without any, remove the file."""
    lines = [{"row": row, "image": image, "reason": words} for row, image, words in damaged]
    write_lines(path, lines)


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON object per line, atomically; without any, remove the file."""
    remaining = iter(lines)
    first = next(remaining, None)
    if first is None:
        with explain_disk(path):
            path.unlink(missing_ok=True)
        return
    with atomic_file(path) as file:
        for line in chain([first], remaining):
            file.write(canonical(line) + b"\n")


def _kind(reason: str) -> str:
    return re.sub(r"\d+", "N", reason)


def reasons(rejects: Sequence[Reject]) -> dict[str, int]:
    """Reason (numbers replaced by N) -> number of rows, the most frequent first."""
    return dict(Counter(_kind(reason) for _, reason in rejects).most_common())


def examples(rejects: Sequence[Reject]) -> list[str]:
    """The three most frequent reasons, each with its first row."""
    first: dict[str, Reject] = {}
    for row, reason in rejects:
        first.setdefault(_kind(reason), (row, reason))
    return [
        f"{first[kind][1]} ({count:,} rows, the first is row {first[kind][0]})"
        for kind, count in list(reasons(rejects).items())[:3]
    ]
