"""OCRBench: the share of answers that contain a right one, by type; times 1,000 it is the score."""

from __future__ import annotations

from ocrtrain.evaluation.benchmarks.base import Benchmark, Gold, Measure, Measured, Value

MEASURE = "contains the answer"
FORMULAS = "HME100k"
"""The data set whose answers are compared without blanks and with case."""


def measure(answer: str, gold: Gold) -> Measured:
    """Right if a gold answer is a part of the answer."""
    fold = _fold_formula if gold.facts.get("data set") == FORMULAS else _fold_text
    right = any(fold(text) in fold(answer) for text in gold.answers)
    groups = {"type": (gold.kind,)}
    return Measured((Value(MEASURE, float(right), groups),), right)


def _fold_text(text: str) -> str:
    return text.lower().strip().replace("\n", " ")


def _fold_formula(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")


BENCHMARK = Benchmark(
    name="ocrbench",
    title="OCRBench",
    version="the 1,000 questions of OCRBench.json",
    definition="arXiv 2305.07895; the authors' OCRBench/example.py (MultimodalOCR at 794c36d): an "
    "answer is right if it contains a gold answer, so long answers are favoured",
    normalisation="case and outer white space ignored, line feeds are blanks; in formulas "
    "(HME100k) blanks are ignored and case counts",
    checked="measure: the authors' script, read; layout: their OCRBench.json",
    columns=(Measure(MEASURE),),
    measure=measure,
)
