"""DocVQA: ANLS, by type of question."""

from __future__ import annotations

from ocrtrain.evaluation.benchmarks import anls
from ocrtrain.evaluation.benchmarks.base import Benchmark, Gold, Measure, Measured, Value

TYPES = "question types"


def measure(answer: str, gold: Gold) -> Measured:
    """ANLS; a question of several types counts for each."""
    value = anls.script_anls(answer, gold.answers)
    types = tuple(gold.facts.get(TYPES) or ())
    return Measured((Value(anls.MEASURE, value, {TYPES: types}),), value > 0)


BENCHMARK = Benchmark(
    name="docvqa",
    title="DocVQA",
    version="1.0 (task 1 of the challenge, 2020)",
    definition=f"arXiv 2007.00398, section 5.1: {anls.DEFINITION}",
    normalisation=anls.NORMALISATION,
    checked=f"{anls.CHECKED}; layout: readers of the file in public repositories, not the file",
    columns=(Measure(anls.MEASURE),),
    measure=measure,
)
