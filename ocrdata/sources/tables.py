"""Small tables in words with the questions of `open_charts.py`: text-only batches in which a model
learns to look up and compare values, at a fraction of the price of an image.

Row i is a function of (seed, i) and the side of the words.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from ocrdata.sample import Sample, from_turns
from ocrdata.sources.open_charts import ask, make_chart
from ocrdata.sources.spans import Span
from ocrdata.sources.synthetic import SyntheticSource
from ocrdata.sources.words import TRAIN

VERSION = 1  # increase it with every change of a row

ITEMS = Span(2, 4)
KINDS = ("value", "compare")


class TablesSource(SyntheticSource):
    """Conversations about a table in the first question."""

    name = "tables"
    version = VERSION

    def __init__(self, rows: int, *, seed: int = 0, words: str = TRAIN) -> None:
        super().__init__(rows, seed=seed)
        self.words = words

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Also the side of the words."""
        return {**super().provenance, "words": self.words}

    def make(self, row: int) -> Sample:
        """See `make_sample`."""
        return make_sample(self.seed, row, self.words)


def make_sample(seed: int, row: int, words: str) -> Sample:
    """A table with a question for each of its values and one comparison, shuffled."""
    pick = random.Random(f"tables-{VERSION}-{seed}-{row}")
    chart = make_chart(pick, ITEMS, words)
    asked = [(kind, *turn) for kind in KINDS for turn in ask(chart, kind, pick)]
    pick.shuffle(asked)
    turns = [(question, answer) for _, question, answer in asked]
    turns[0] = (f"Table: {chart.table}. {turns[0][0]}", turns[0][1])
    meta = {"kinds": [kind for kind, _, _ in asked], "words": words}
    return from_turns(turns, [], source="tables", meta=meta)
