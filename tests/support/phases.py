"""Phases of a mixture from integer weights."""

from __future__ import annotations

from fractions import Fraction

from ocrdata.planning.mixture import Phase

Weights = list[int]


def phases(*lists: Weights, starts: tuple[int, ...] = (0,)) -> list[Phase]:
    return [
        Phase(start, tuple(map(Fraction, weights)))
        for start, weights in zip(starts, lists, strict=True)
    ]
