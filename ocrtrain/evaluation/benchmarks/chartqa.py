"""ChartQA: relaxed accuracy, for human and augmented questions apart."""

from __future__ import annotations

from ocrtrain.evaluation.benchmarks.base import Benchmark, Gold, Measure, Measured, Value
from ocrtrain.evaluation.scores import is_other_year, relaxed_match

MEASURE = "relaxed accuracy"
STRICT = "without other years"


def measure(answer: str, gold: Gold) -> Measured:
    """Right if relaxed-correct for one of the gold answers; ChartQA has one."""
    matching = [text for text in gold.answers if relaxed_match(answer, text)]
    strict = any(not is_other_year(answer, text) for text in matching)
    groups = {"questions": (gold.kind,)}
    values = (
        Value(MEASURE, float(bool(matching)), groups),
        Value(STRICT, float(strict), groups),
    )
    return Measured(values, bool(matching))


BENCHMARK = Benchmark(
    name="chartqa",
    title="ChartQA",
    version="the authors' folder of 2022",
    definition="arXiv 2203.10244, section 5.1; pix2struct's relaxed_correctness. Followed: a "
    "number within 5 % of the gold one is right, a year too, and 12% is 0.12; texts must be equal. "
    "Differs: grouped thousands are numbers, '0.0' is 0, and the arithmetic is exact",
    normalisation="case and outer white space ignored; punctuation and units count",
    checked="measure: hand-computed cases, and the published rule in floats on random numbers and "
    "texts; layout: the authors' folder as described in their repository",
    columns=(Measure(MEASURE), Measure(STRICT)),
    measure=measure,
)
