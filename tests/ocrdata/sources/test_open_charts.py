"""Charts with random words: answers follow from what is drawn, and held-out words stay held out."""

import random
import re
from collections import Counter

import numpy as np
import pytest

from ocrdata.errors import UsageError
from ocrdata.images.decode import decode_rgb, read_header
from ocrdata.sample import check, text_of
from ocrdata.sources.open_charts import (
    KINDS,
    LABEL,
    LOOKED_UP,
    Chart,
    Item,
    OpenChartOptions,
    OpenChartsSource,
    choose,
    make_sample,
    paint,
)
from ocrdata.sources.registry import CHART_QUESTIONS
from ocrdata.sources.spans import Span
from ocrdata.sources.words import HELD_OUT, TRAIN, side_of

OPTIONS = OpenChartOptions()
CHART = Chart("bar", "ABCD", (Item("KLM", 40), Item("XYZ", 72)), (214, 39, 40))


def turns_of(options: OpenChartOptions, row: int) -> list[tuple[str, str, str]]:
    sample = make_sample(options, 1, row)
    texts = [text_of(message) for message in sample.messages]
    return list(zip(sample.meta["kinds"], texts[::2], texts[1::2], strict=True))


@pytest.mark.parametrize("row", range(20))
def test_answers_follow_from_what_is_drawn(row: int) -> None:
    sample = make_sample(OPTIONS, 1, row)
    check(sample)
    info = read_header(sample.images[0])
    assert (info.format, info.width, info.height) == ("png", 256, 256)
    (drawn,) = sample.meta["charts"]
    values = dict(drawn["items"])
    assert len(values) == len(drawn["items"]) and len(set(values.values())) == len(values)
    turns = turns_of(OPTIONS, row)
    kinds = sorted(kind for kind, _, _ in turns)
    written = sorted(set(KINDS) - set(LOOKED_UP) - {"table"})
    assert kinds in (["table"], written, ["compare", *["value"] * len(values)])
    for kind, question, answer in turns:
        if kind == "table":
            assert answer == "; ".join(f"{label} {value}" for label, value in values.items())
        if kind in ("title", "type"):
            assert answer == drawn[kind]
        if kind == "count":
            assert answer == str(len(values))
        if kind == "largest":
            assert values[answer] == max(values.values())
        if kind == "value":
            label = question.removeprefix("What is the value of ").removesuffix("?")
            assert answer == f"{label} {values[label]}"
        if kind == "compare":
            assert (found := re.fullmatch(r"(\w+) (\d+), (\w+) (\d+): (\w+)", answer))
            assert question == f"Which is larger, {found[1]} or {found[3]}?"
            assert (values[found[1]], values[found[3]]) == (int(found[2]), int(found[4]))
            assert values[found[5]] == max(int(found[2]), int(found[4]))


def test_every_word_is_on_its_side_and_the_sides_share_none() -> None:
    found: dict[str, set[str]] = {}
    for words in (TRAIN, HELD_OUT):
        sides = set()
        for row in range(300):
            sample = make_sample(OpenChartOptions(words=words), 0, row)
            (drawn,) = sample.meta["charts"]
            drawn_words = [drawn["title"], *(label for label, _ in drawn["items"])]
            assert {side_of(word) for word in drawn_words} == {words}
            sides.update(drawn_words)
        found[words] = sides
    assert len(found[HELD_OUT]) > 500 and not found[TRAIN] & found[HELD_OUT]


def test_a_row_depends_on_seed_and_options_alone() -> None:
    source = OpenChartsSource(9, OPTIONS, seed=3)
    (again,) = [sample for _, sample in OpenChartsSource(99, OPTIONS, seed=3).rows(7, 8)]
    assert list(source.rows(0, 9))[7][1] == again
    assert make_sample(OPTIONS, 3, 7) != make_sample(OPTIONS, 4, 7)
    assert source.provenance["items"] == "2..4" and source.provenance["words"] == "train"


def test_every_kind_is_asked_first_and_no_look_up_follows_a_table() -> None:
    pick = random.Random(0)
    asked = [[kind for kind, _, _ in choose(CHART, KINDS, pick)] for _ in range(400)]
    assert {kinds[0] for kinds in asked} == set(KINDS)
    assert not any("table" in kinds and set(LOOKED_UP) & set(kinds) for kinds in asked)
    alone = Counter(len(kinds) for kinds in asked)[1]
    assert 400 * 0.18 < alone < 400 * 0.32, "a table alone: 0.6 * 0.4"
    assert [kind for kind, _, _ in choose(CHART, ("title",), pick)] == ["title"]
    assert {kind for kind, _, _ in choose(CHART, LOOKED_UP, pick)} == set(LOOKED_UP)


def test_several_charts_in_a_sample_each_before_its_questions() -> None:
    options = OpenChartOptions(size=128, items=Span(1, 2), images=3, questions=("table", "title"))
    sample = make_sample(options, 0, 5)
    check(sample)
    assert len(sample.images) == len(sample.meta["charts"]) == 3
    asked = [message for message in sample.messages if message["role"] == "user"]
    chart = -1
    for message, answer in zip(asked, sample.messages[1::2], strict=True):
        chart += message["content"][0] == {"type": "image"}
        drawn = sample.meta["charts"][chart]
        table = "; ".join(f"{label} {value}" for label, value in drawn["items"])
        assert text_of(answer) in (drawn["title"], table)
    assert chart == 2


@pytest.mark.parametrize("kind", ["column", "bar", "line"])
def test_what_differs_is_drawn_differently_and_nothing_hides_a_string(kind: str) -> None:
    def pixels(chart: Chart) -> np.ndarray:
        return decode_rgb(paint(chart, 256, 0, random.Random(0))).astype(int)

    chart = Chart(kind, CHART.title, CHART.items, CHART.colour)
    other = Chart(kind, CHART.title, (Item("KLM", 40), Item("XYZ", 73)), CHART.colour)
    assert (pixels(chart) != pixels(other)).any()
    title = pixels(chart)[:16, : 16 * 4]
    assert (title < 128).any(axis=2).sum() > 100, "four letters of ink"
    assert (pixels(chart)[:, -1] == 255).all() or kind != "bar", "the longest bar ends inside"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 100}, "--size 100: out of range 128"),
        ({"items": Span(2, 5)}, "--items 2..5: 256 px have room for 4"),
        ({"size": 128, "items": Span(1, 3)}, "--items 1..3: 128 px have room for 2"),
        ({"images": 0}, "--per-sample 0"),
        ({"offset": 9}, "--offset 9: out of range 0 to 8"),
        ({"questions": ()}, "--questions: choose from table"),
        ({"items": Span(1, 2)}, "--questions compare needs"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OpenChartOptions(**values)  # type: ignore[arg-type]


def test_the_flag_has_the_same_kinds() -> None:
    assert CHART_QUESTIONS == KINDS and LABEL >= 3, "shorter words would be on both sides"
