"""TextVQA: VQA accuracy, an answer compared with those of ten people."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ocrtrain.evaluation.benchmarks.base import Benchmark, Gold, Measure, Measured, Value

MEASURE = "VQA accuracy"
AGREEING = 3
"""People who must have given an answer for it to be wholly right."""

_CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't "
    "haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't "
    "mightn't've must've mustn't needn't not've o'clock oughtn't shan't she'd've should've "
    "shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll "
    "someone's something'd something'd've something'll that's there'd there'd've there're there's "
    "they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're "
    "what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll "
    "why're why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've "
    "you'll you're you've"
)
"""Words whose forms without one of their apostrophes get it back."""

_ODD = {
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    "somebody'd": "somebodyd",
    "y'allll": "y'all'll",
}
"""Entries of the published table that follow no rule."""

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),+(?=\d)")
_STOP = re.compile(r"\.(?!\d)")
_STOPS = 32
"""Full stops that are removed at most: the published code passes a flag where a count belongs."""


def _forms() -> Iterator[tuple[str, str]]:
    for word in _CONTRACTED.split():
        for at, letter in enumerate(word):
            if letter == "'":
                yield word[:at] + word[at + 1 :], word


CONTRACTIONS = {**dict(_forms()), **_ODD}


def measure(answer: str, gold: Gold) -> Measured:
    """The mean over the ten people of min(1, how many of the other nine gave this answer / 3)."""
    given = processed(answer)
    same = [processed(text) == given for text in gold.facts.get("answers") or gold.answers]
    agreeing = sum(same)
    scores = [min(1.0, (agreeing - one) / AGREEING) for one in same]
    value = sum(scores) / len(scores)
    return Measured((Value(MEASURE, value),), agreeing >= 1)


def processed(text: str) -> str:
    """A text as answers are compared: see `BENCHMARK.normalisation`."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    whole = text
    number = bool(_COMMA_IN_NUMBER.search(whole))
    for mark in _PUNCTUATION:
        at_word_end = f"{mark} " in whole or f" {mark}" in whole
        text = text.replace(mark, "" if at_word_end or number else " ")
    text = _STOP.sub("", text, _STOPS)
    words = [_DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


BENCHMARK = Benchmark(
    name="textvqa",
    title="TextVQA",
    version="0.5.1",
    definition="arXiv 1904.08920; VQA accuracy over the ten leave-one-out sets, with the EvalAI "
    "processing of answers of MMF (its table of contractions, and its limit of 32 full stops)",
    normalisation="case, articles, most punctuation and full stops ignored; one to ten are digits; "
    "contractions get their apostrophes; line feeds and tabs are blanks",
    checked="measure: lmms-eval's copy of MMF's code on hand-made and random answers; layout: "
    "readers of the file in public repositories, not the file",
    columns=(Measure(MEASURE),),
    measure=measure,
)
