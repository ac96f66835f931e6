"""Scores an answer against the gold answer: plain functions of two strings.

Relaxed accuracy, exact match, edit distance and word overlap. Texts are normalised only where a
docstring says so. A precision is always reported with the length of the answer, because short
answers score high on precision.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction

from rapidfuzz.distance import Levenshtein

RELAXED_TOLERANCE = Fraction(1, 20)
"""ChartQA (arXiv 2203.10244, section 5.1): a number is correct within 5 % of the gold value."""

_NUMBER = re.compile(
    r"(?P<value>[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
    r"(?:[eE][+-]?[0-9]{1,3})?)\s*(?P<percent>%?)"
)
_LONGEST_NUMBER = 64
"""Characters; the output of a model that repeats a digit endlessly is not a number."""


def parse_number(text: str) -> Fraction | None:
    """The exact number that `text` as a whole stands for; None if it is not a number.

    '12%' and '12 %' are 12/100, as in the reference implementation of relaxed accuracy (pix2struct,
    `relaxed_correctness`): '12' is not within 5 % of '12%'. Commas count only where they group
    thousands ('1,234.5'); the reference compares such answers as text. Currency signs, units, 'nan'
    and 'inf' are not numbers.
    """
    text = text.strip()
    match = _NUMBER.fullmatch(text) if len(text) <= _LONGEST_NUMBER else None
    if match is None:
        return None
    value = Fraction(match["value"].replace(",", ""))
    return value / 100 if match["percent"] else value


def relaxed_match(answer: str, gold: str) -> bool:
    """ChartQA's relaxed correctness of one answer.

    If both are numbers: |answer - gold| <= 5 % of |gold|, in exact arithmetic, so that 1.47 is
    correct for 1.4. For a gold value of zero the answer must be zero (the reference compares texts
    there, so that '0.0' is wrong for '0'). Otherwise the texts must be equal except for case and
    outer white space.
    """
    expected, given = parse_number(gold), parse_number(answer)
    if expected is not None and given is not None:
        return abs(given - expected) <= RELAXED_TOLERANCE * abs(expected)
    return answer.strip().lower() == gold.strip().lower()


def exact_match(answer: str, gold: str) -> bool:
    """Equal except for outer white space; case matters."""
    return answer.strip() == gold.strip()


def edit_distance(answer: str, gold: str) -> float:
    """NED: Levenshtein distance in code points / the longer length, in [0, 1]; lower is better.

    0.0 if both are empty. OmniDocBench and DeepSeek-OCR report this number.
    """
    return float(Levenshtein.normalized_distance(answer, gold))


@dataclass(frozen=True, slots=True)
class WordOverlap:
    """Words of answer and gold compared as sets, as Fox does (split at white space)."""

    common: int
    answer_words: int
    """Distinct words of the answer."""
    gold_words: int
    """Distinct words of the gold text."""

    @property
    def precision(self) -> float:
        """|gold ∩ answer| / |answer|; for an empty answer 0, or 1 if the gold is empty too."""
        return self.common / self.answer_words if self.answer_words else float(not self.gold_words)

    @property
    def recall(self) -> float:
        """|gold ∩ answer| / |gold|; for an empty gold 0, or 1 if the answer is empty too."""
        return self.common / self.gold_words if self.gold_words else float(not self.answer_words)


def word_overlap(answer: str, gold: str) -> WordOverlap:
    """Compare the sets of words; see `WordOverlap`."""
    given, expected = set(answer.split()), set(gold.split())
    return WordOverlap(len(given & expected), len(given), len(expected))


@dataclass(frozen=True, slots=True)
class Score:
    """All scores of one answer. `length` and `gold_length` are in characters."""

    relaxed: bool
    exact: bool
    ned: float
    word_precision: float
    word_recall: float
    length: int
    gold_length: int


def score(answer: str, gold: str) -> Score:
    """Every score of `answer` against `gold`."""
    words = word_overlap(answer, gold)
    return Score(
        relaxed=relaxed_match(answer, gold),
        exact=exact_match(answer, gold),
        ned=edit_distance(answer, gold),
        word_precision=words.precision,
        word_recall=words.recall,
        length=len(answer),
        gold_length=len(gold),
    )


def mean_scores(scores: Sequence[Score]) -> dict[str, float]:
    """The mean of each field over the answers, and their number under 'answers'.

    {'answers': 3, 'relaxed': 0.67, ..., 'length': 4.3, ...}. Raises ValueError for no answers.
    """
    if not scores:
        raise ValueError("no answers to average")
    rows = [asdict(one) for one in scores]
    means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    return {"answers": len(rows), **means}
