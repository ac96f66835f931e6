"""Tables in words: every answer follows from the table in the first question."""

import re

import pytest

from ocrdata.sample import check, text_of
from ocrdata.sources.tables import TablesSource, make_sample
from ocrdata.sources.words import HELD_OUT, TRAIN, side_of


@pytest.mark.parametrize("words", [TRAIN, HELD_OUT])
def test_answers_follow_from_the_table(words: str) -> None:
    for row in range(40):
        sample = make_sample(0, row, words)
        check(sample)
        assert not sample.images
        texts = [text_of(message) for message in sample.messages]
        table, _ = texts[0].removeprefix("Table: ").split(". ", 1)
        values = {label: int(value) for label, value in map(str.split, table.split("; "))}
        assert {side_of(label) for label in values} == {words}
        asked = set()
        for kind, answer in zip(sample.meta["kinds"], texts[1::2], strict=True):
            if kind == "value":
                label, value = answer.split()
                assert values[label] == int(value)
                asked.add(label)
            else:
                assert (found := re.fullmatch(r"(\w+) (\d+), (\w+) (\d+): (\w+)", answer))
                assert values[found[1]] == int(found[2]) and values[found[3]] == int(found[4])
                assert values[found[5]] == max(int(found[2]), int(found[4]))
        assert asked == set(values)


def test_rows_depend_on_the_seed_alone() -> None:
    rows = dict(TablesSource(9, seed=2).rows(0, 9))
    assert rows[4] == make_sample(2, 4, TRAIN) != make_sample(3, 4, TRAIN)
    assert TablesSource(9, words=HELD_OUT).provenance["words"] == HELD_OUT
