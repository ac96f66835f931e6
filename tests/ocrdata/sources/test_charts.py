import random
from collections import Counter

import numpy as np
import pytest

from ocrdata.images.decode import decode_rgb, read_header
from ocrdata.sample import check, text_of
from ocrdata.sources.charts import (
    COLOURS,
    KINDS,
    NOUNS,
    SIZE,
    Item,
    draw,
    make_chart,
    make_sample,
)


@pytest.mark.parametrize("row", range(30))
def test_rows_are_valid_and_answers_follow_from_the_drawing(row: int) -> None:
    sample = make_sample(1, row)
    check(sample)
    info = read_header(sample.images[0])
    assert (info.format, info.width, info.height) == ("png", SIZE, SIZE)
    items = [Item(*item) for item in sample.meta["items"]]
    by_label = {item.label: item.value for item in items}
    top = max(items, key=lambda item: item.value)
    spoken = [text_of(message) for message in sample.messages]
    found = dict(
        zip(sample.meta["kinds"], zip(spoken[::2], spoken[1::2], strict=True), strict=True)
    )
    assert sorted(found) == sorted(KINDS)
    assert found["type"][1] == sample.meta["type"]
    assert found["count"] == (f"How many {NOUNS[sample.meta['type']]} are there?", str(len(items)))
    assert found["colour"][1] == top.colour
    assert found["title"][1] == sample.meta["title"]
    assert found["month"][1] == sample.meta["month"]
    assert found["largest"][1] == top.label
    label = found["value"][0].removeprefix("What is the value of ").removesuffix("?")
    assert found["value"][1] == str(by_label[label])
    left, right = found["compare"][0].removeprefix("Is ").removesuffix("?").split(" larger than ")
    assert found["compare"][1] == ("yes" if by_label[left] > by_label[right] else "no")


def test_the_colour_in_the_answer_is_in_the_image() -> None:
    for row in range(20):
        chart = make_chart(random.Random(row))
        pixels = decode_rgb(draw(chart)).reshape(-1, 3)
        painted = {name: int((pixels == rgb).all(axis=1).sum()) for name, rgb in COLOURS.items()}
        drawn = {item.colour for item in chart.items}
        assert {name for name, count in painted.items() if count > 50} == drawn
        if chart.type == "pie":
            assert max(painted, key=lambda name: painted[name]) == chart.largest.colour


def test_values_of_a_chart_differ_and_nothing_is_cut_off_at_the_edges() -> None:
    for row in range(50):
        chart = make_chart(random.Random(row))
        assert len({item.value for item in chart.items}) == len(chart.items)
        pixels = decode_rgb(draw(chart))
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (edge == 255).all(), chart


def test_answers_are_uniform_so_that_a_blind_model_cannot_guess() -> None:
    answers: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    rows = 600
    for row in range(rows):
        sample = make_sample(0, row)
        for kind, message in zip(sample.meta["kinds"], sample.messages[1::2], strict=True):
            answers[kind][text_of(message)] += 1
    likeliest = {kind: max(counter.values()) / rows for kind, counter in answers.items()}
    allowed = {"type": 0.40, "count": 0.31, "compare": 0.56, "value": 0.17}
    assert all(share <= allowed.get(kind, 0.18) for kind, share in likeliest.items()), likeliest
