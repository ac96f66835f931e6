"""InfographicVQA: ANLS, by type of answer, evidence and operation."""

from __future__ import annotations

from ocrtrain.evaluation.benchmarks import anls
from ocrtrain.evaluation.benchmarks.base import Benchmark, Gold, Measure, Measured, Value

DIVISIONS = ("answer type", "evidence", "operation")


def measure(answer: str, gold: Gold) -> Measured:
    """ANLS; a question with several labels counts for each."""
    value = anls.script_anls(answer, gold.answers)
    groups = {name: tuple(gold.facts.get(name) or ()) for name in DIVISIONS}
    return Measured((Value(anls.MEASURE, value, groups),), value > 0)


BENCHMARK = Benchmark(
    name="infographicvqa",
    title="InfographicVQA",
    version="1.0 (task 3 of the challenge, 2021)",
    definition=f"arXiv 2104.12756, section 5.2: {anls.DEFINITION}",
    normalisation=anls.NORMALISATION,
    checked=f"{anls.CHECKED}; layout: the fields that the package anls 0.0.2 reads, not the file",
    columns=(Measure(anls.MEASURE),),
    measure=measure,
)
