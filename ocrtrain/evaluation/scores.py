"""Scores an answer against the gold answers: plain functions of strings.

Relaxed accuracy, exact match, ANLS, edit distance and word overlap. All of them compare texts in
Unicode's composed form (NFC), so that one letter is equal to itself however it is encoded; beyond
that, texts are normalised only where a docstring says so. A precision is always reported with the
length of the answer, because short answers score high on precision.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction

from rapidfuzz.distance import Levenshtein

RELAXED_TOLERANCE = Fraction(1, 20)
"""ChartQA (arXiv 2203.10244, section 5.1): a number is correct within 5 % of the gold value."""

ANLS_THRESHOLD = 0.5
"""A similarity below it is that of another answer, not of a badly read one, and counts 0."""

_YEAR = re.compile(r"1[0-9]{3}|20[0-9]{2}")

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

    By this rule, as by the reference, a year is a number: 2008 is correct for 2010, and every year
    from 1910 to 2110 is. `is_other_year` tells such answers apart.
    """
    expected, given = parse_number(gold), parse_number(answer)
    if expected is not None and given is not None:
        return abs(given - expected) <= RELAXED_TOLERANCE * abs(expected)
    return _composed(answer).strip().lower() == _composed(gold).strip().lower()


def is_other_year(answer: str, gold: str) -> bool:
    """Whether both are four digits from 1000 to 2099, as years are written, and not the same."""
    given, expected = answer.strip(), gold.strip()
    years = _YEAR.fullmatch(given) and _YEAR.fullmatch(expected)
    return bool(years) and given != expected


def exact_match(answer: str, gold: str) -> bool:
    """Equal except for outer white space; case matters."""
    return _composed(answer).strip() == _composed(gold).strip()


def edit_distance(answer: str, gold: str) -> float:
    """NED: Levenshtein distance in code points / the longer length, in [0, 1]; lower is better.

    0.0 if both are empty. OmniDocBench and DeepSeek-OCR report this number.
    """
    return float(Levenshtein.normalized_distance(_composed(answer), _composed(gold)))


def anls(answer: str, golds: Sequence[str]) -> float:
    """ANLS of one answer, in [0, 1]: 1 - NED to the nearest gold answer, 0 if that is below 0.5.

    Case is ignored, and any white space counts as one blank. This is the definition of ST-VQA
    (arXiv 1907.00490, equation 1) and DocVQA; at exactly 0.5 their formula gives 0 and their
    script, which is followed here, 0.5. Raises ValueError without gold answers.
    """
    if not golds:
        raise ValueError("no gold answer to compare with")
    similarity = 1 - min(edit_distance(_folded(answer), _folded(gold)) for gold in golds)
    return similarity if similarity >= ANLS_THRESHOLD else 0.0


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


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
    given, expected = set(_composed(answer).split()), set(_composed(gold).split())
    return WordOverlap(len(given & expected), len(given), len(expected))


@dataclass(frozen=True, slots=True)
class Score:
    """All scores of one answer. `length` and `gold_length` are in characters (NFC); `other_year`
    says that the answer is relaxed although it names another year than every gold answer."""

    relaxed: bool
    exact: bool
    anls: float
    ned: float
    word_precision: float
    word_recall: float
    length: int
    gold_length: int
    other_year: bool = False


def score(answer: str, *golds: str) -> Score:
    """Every score of `answer`. Of several gold answers, each of which is right, `relaxed`, `exact`
    and `anls` take the one that scores best; the others compare with the nearest one by NED, the
    first of equals. Raises ValueError without gold answers."""
    if not golds:
        raise ValueError("no gold answer to compare with")
    nearest = min(golds, key=lambda gold: edit_distance(answer, gold))
    words = word_overlap(answer, nearest)
    matching = [gold for gold in golds if relaxed_match(answer, gold)]
    return Score(
        relaxed=bool(matching),
        exact=any(exact_match(answer, gold) for gold in golds),
        anls=anls(answer, golds),
        ned=edit_distance(answer, nearest),
        word_precision=words.precision,
        word_recall=words.recall,
        length=len(_composed(answer)),
        gold_length=len(_composed(nearest)),
        other_year=bool(matching) and all(is_other_year(answer, gold) for gold in matching),
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
