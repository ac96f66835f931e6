"""Rejected rows: the file that lists them, and summaries of their reasons."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ocrdata.storage.files import atomic_file, explain_disk
from ocrdata.storage.sealed import canonical

Reject = tuple[int, str]
"""(origin row, reason)"""


def rejects_path(out: Path, name: str) -> Path:
    """NAME.rejects.jsonl: a line `{"reason": ..., "row": ...}` for each; absent without any."""
    return out / f"{name}.rejects.jsonl"


def write_rejects(path: Path, rejects: Sequence[Reject]) -> None:
    """Write rejects in row order, atomically; without any, remove the file."""
    if not rejects:
        with explain_disk(path):
            path.unlink(missing_ok=True)
        return
    with atomic_file(path) as file:
        for row, reason in rejects:
            file.write(canonical({"row": row, "reason": reason}) + b"\n")


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
