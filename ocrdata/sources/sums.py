"""Synthetic conversations without images: small sums in words, the text half of the demo.

Row i is a function of (seed, i). It has one to three turns; each answer follows from its question.
"""

from __future__ import annotations

import random

from ocrdata.sample import Sample, from_turns
from ocrdata.sources.synthetic import SyntheticSource

VERSION = 1  # increase it with every change of a row

NAMES = ("Ann", "Ben", "Eva", "Ida", "Jon", "Kim", "Leo", "Mia")
THINGS = ("apples", "books", "coins", "keys", "pens", "shells")
TEMPLATES = (
    ("What is {a} + {b}?", "{sum}"),
    ("What is {top} - {b}?", "{left}"),
    ("{name} has {a} {thing} and finds {b} more. How many now?", "{sum} {thing}"),
    ("{name} had {top} {thing} and lost {b}. How many are left?", "{left} {thing}"),
    ("Which is larger, {a} or {other}?", "{larger}"),
)


class SumsSource(SyntheticSource):
    """Conversations of one to three turns."""

    name = "sums"
    version = VERSION

    def make(self, row: int) -> Sample:
        """See `make_sample`."""
        return make_sample(self.seed, row)


def make_sample(seed: int, row: int) -> Sample:
    """One to three turns."""
    pick = random.Random(f"sums-{VERSION}-{seed}-{row}")
    turns = [make_turn(pick) for _ in range(pick.randint(1, 3))]
    return from_turns(turns, [], source="sums", meta={})


def make_turn(pick: random.Random) -> tuple[str, str]:
    """(question, answer), with numbers from 1 to 20."""
    a, b = pick.randint(1, 20), pick.randint(1, 20)
    other = pick.choice([number for number in range(1, 21) if number != a])
    words: dict[str, object] = {
        "a": a,
        "b": b,
        "other": other,
        "sum": a + b,
        "top": a + b,
        "left": a,
        "larger": max(a, other),
        "name": pick.choice(NAMES),
        "thing": pick.choice(THINGS),
    }
    question, answer = pick.choice(TEMPLATES)
    return question.format(**words), answer.format(**words)
