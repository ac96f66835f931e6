"""A collate function that worker processes import fast: which samples a batch holds."""

from __future__ import annotations

from typing import Any

Keys = list[list[tuple[str, str]]]


def keys(rows: list[Any]) -> Keys:
    """Source and key of each row's samples."""
    samples = [row if isinstance(row, list) else [row] for row in rows]
    return [[(one["source"], one["key"]) for one in row] for row in samples]
