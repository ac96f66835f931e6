"""ChartQAPro: relaxed accuracy with ANLS for texts, years and lists treated apart, by type."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from ocrtrain.evaluation.benchmarks.base import Benchmark, Gold, Measure, Measured, Value
from ocrtrain.evaluation.scores import ANLS_THRESHOLD, anls

MEASURE = "relaxed correctness"
CONVERSATIONAL = "Conversational"
TOLERANCE = 0.05
EXACT = "YES"
"""The flag of an answer that is a year."""

_LIST = re.compile(r"\[(.*)\]")
_BARE_WORD = re.compile(r"(?<!['\w])(\w[^,]*?)(?!['\w])")
"""What the script puts in quotes in a list without any: it does so at letters and digits only."""
LONGEST_LIST = 10_000
"""Characters; a longer answer is not read as a list."""


def measure(answer: str, gold: Gold) -> Measured:
    """The mean over the elements of the longer list, of the gold's and the answer's; an element
    that the other does not have counts 0."""
    years = [str(flag) for flag in gold.facts.get("year") or ()]
    if gold.kind == CONVERSATIONAL:
        years = years[-1:]
    target, answer = _trimmed(gold.answers[0]), _trimmed(answer)
    expected = _list(_quoted(target)) or _list(target) or [target]
    given = _list(answer) or [answer]
    if len(years) < len(expected):
        years = years * len(expected)
    scores = [
        _element_score(expected[at], given[at], at < len(years) and years[at].upper() == EXACT)
        if at < min(len(expected), len(given))
        else 0.0
        for at in range(max(len(expected), len(given)))
    ]
    value = sum(scores) / len(scores)
    groups = {"question type": (gold.kind,)}
    return Measured((Value(MEASURE, value, groups),), value >= ANLS_THRESHOLD)


def _trimmed(text: str) -> str:
    return text.strip(".").strip("\n")


def _quoted(text: str) -> str:
    """`[a b, c]` -> `['a b', 'c']`, as far as the script's expression does it."""
    found = _LIST.fullmatch(text.strip())
    return f"[{_BARE_WORD.sub(_in_quotes, found[1])}]" if found else text


def _in_quotes(found: re.Match[str]) -> str:
    return f"'{found[1]}'"


def _list(text: str) -> Sequence[str]:
    """The elements of a list in Python's syntax; none of any other text."""
    if not text.lstrip().startswith("[") or len(text) > LONGEST_LIST:
        return []
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return []
    return [str(one).strip(" '") for one in value] if isinstance(value, list) else []


def _element_score(expected: str, given: str, exact: bool) -> float:
    if exact:
        return float(expected.strip().lower() == given.strip().lower())
    expected, given = (text.strip().strip("%").strip() for text in (expected, given))
    gold_number, number = _number(expected), _number(given)
    if gold_number is None or number is None:
        similarity = anls(given, [expected])
        return similarity if similarity > ANLS_THRESHOLD else 0.0
    if gold_number == 0:
        return float(number == 0)
    return float(abs(number - gold_number) / abs(gold_number) <= TOLERANCE)


def _number(text: str) -> float | None:
    try:
        return float(text.strip("%"))
    except ValueError:
        return None


BENCHMARK = Benchmark(
    name="chartqapro",
    title="ChartQAPro",
    version="the hub's test split of 2025",
    definition="arXiv 2504.05506; the authors' evaluate_predictions.py (ChartQAPro at 4b422c6): a "
    "number is right within 5 %, a year only if it is equal, a text has its ANLS (0 at and "
    "below 0.5, as in the package anls 0.0.2), a list the mean over its elements. Fact checking "
    "and multiple choice are not compared exactly: the script never uses its switch for that",
    normalisation="full stops and line feeds at the ends and % ignored, case and white space in "
    "texts; thousands are not grouped: '1,000' is a text",
    checked="measure: the authors' script on hand-made and random answers; layout: the columns "
    "that the script and lmms-eval read, not the files",
    columns=(Measure(MEASURE),),
    measure=measure,
)
