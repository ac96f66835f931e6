"""The sources of small plans."""

from __future__ import annotations

from fractions import Fraction

from ocrdata.planning.plan import PlanSource

SEQ_LEN = 60


def two(vision: int = 30, text: int = 20) -> list[PlanSource]:
    return [
        PlanSource("vision", vision, Fraction(18, 28)),
        PlanSource("text", text, Fraction(10, 28)),
    ]
