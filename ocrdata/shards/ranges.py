"""Ranges in the names of shards: `x-<000..017>.tar`, `x-{000..017}.tar`, `x-{a,b}.tar`."""

from __future__ import annotations

import itertools
import re

from ocrdata.errors import SpecError

MAX_FILES = 1_000_000
NUMBER = "[0-9]{1,18}"  # int() rejects thousands of digits and accepts those of other scripts
_RANGE = re.compile(
    rf"<({NUMBER})\.\.({NUMBER})>|\{{({NUMBER})\.\.({NUMBER})\}}|\{{([^{{}}]*,[^{{}}]*)\}}"
)


def has_range(text: str) -> bool:
    """Whether a name has a range in it."""
    return _RANGE.search(text) is not None


def expand_ranges(text: str) -> list[str]:
    """Every name that a name with ranges stands for, in order. Raises SpecError."""
    pieces: list[list[str]] = []
    at, count = 0, 1
    for match in _RANGE.finditer(text):
        choices = _choices(text, match)
        count *= len(choices)
        if count > MAX_FILES:
            raise SpecError(f"{text}: matches more than {MAX_FILES:,} files")
        pieces += [[text[at : match.start()]], choices]
        at = match.end()
    pieces.append([text[at:]])
    return ["".join(parts) for parts in itertools.product(*pieces)]


def _choices(text: str, match: re.Match[str]) -> list[str]:
    first, last = match[1] or match[3], match[2] or match[4]
    if first is None:
        return match[5].split(",")
    start, stop = int(first), int(last)
    if stop < start:
        raise SpecError(
            f"{text}: the range {match[0]} is descending; to reverse, slice with [::-1]"
        )
    if stop - start >= MAX_FILES:
        raise SpecError(f"{text}: matches more than {MAX_FILES:,} files")
    padded = any(len(bound) > 1 and bound[0] == "0" for bound in (first, last))
    width = max(len(first), len(last)) if padded else 1
    return [f"{number:0{width}d}" for number in range(start, stop + 1)]
