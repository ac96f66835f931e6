"""Synthetic charts: bars, lines and pies with questions of the kinds ChartQA asks.

Row i is a function of (seed, i). Titles, months, colours, labels and values are independent and
uniform, so that a model that ignores the image does no better than chance. Charts are drawn at 256
px, where a person can read every word, in the font that comes with Pillow.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from ocrdata.sample import Sample, from_turns
from ocrdata.sources.synthetic import SyntheticSource, to_png

SIZE = 256  # px, both sides
VERSION = 1  # increase it with every change of a row

TYPES = ("bar", "line", "pie")
COLOURS = {
    "red": (214, 39, 40), "blue": (31, 90, 200), "green": (34, 150, 50), "orange": (255, 140, 0),
    "purple": (140, 60, 180), "brown": (120, 72, 40), "pink": (250, 130, 190),
    "grey": (130, 130, 130),
}  # fmt: skip
LABELS = ("Tea", "Rice", "Fish", "Milk", "Corn", "Eggs", "Oil", "Salt", "Nuts", "Beef")
TITLES = (
    "Sales", "Exports", "Imports", "Profit", "Costs", "Output", "Demand", "Stock", "Waste",
    "Trade",
)  # fmt: skip
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
NOUNS = {"bar": "bars", "line": "points", "pie": "slices"}
KINDS = ("type", "count", "colour", "title", "month", "largest", "value", "compare")

INK, PAPER = (30, 30, 30), (255, 255, 255)


class Item(NamedTuple):
    """One bar, point or slice."""

    label: str
    value: int
    colour: str


@dataclass(frozen=True)
class Chart:
    """Everything that is drawn."""

    type: str
    title: str
    month: str
    items: tuple[Item, ...]

    @property
    def largest(self) -> Item:
        """The item with the largest value; no two values of a chart are equal."""
        return max(self.items, key=lambda item: item.value)


class ChartsSource(SyntheticSource):
    """Charts, each with one question of each of `KINDS`, shuffled."""

    name = "charts"
    version = VERSION

    def make(self, row: int) -> Sample:
        """See `make_sample`."""
        return make_sample(self.seed, row)


def make_sample(seed: int, row: int) -> Sample:
    """Chart, questions and answers of one row; `meta` has each turn's kind and what is drawn."""
    pick = random.Random(f"charts-{VERSION}-{seed}-{row}")
    chart = make_chart(pick)
    asked = questions(chart, pick)
    pick.shuffle(asked)
    return from_turns(
        [(question, answer) for _, question, answer in asked],
        [draw(chart)],
        source="charts",
        meta={
            "kinds": [kind for kind, _, _ in asked],
            "type": chart.type,
            "title": chart.title,
            "month": chart.month,
            "items": [list(item) for item in chart.items],
        },
    )


def make_chart(pick: random.Random) -> Chart:
    """A chart of 3 to 6 items. Bars and lines have one colour, each slice of a pie its own."""
    kind = pick.choice(TYPES)
    count = pick.randint(3, 6)
    labels = pick.sample(LABELS, count)
    # A slice of value 10 would be too thin for its label.
    values = pick.sample(range(20 if kind == "pie" else 10, 100, 10), count)
    colours = pick.sample(list(COLOURS), count)
    if kind != "pie":
        colours = colours[:1] * count
    items = tuple(map(Item, labels, values, colours))
    return Chart(kind, pick.choice(TITLES), pick.choice(MONTHS), items)


def questions(chart: Chart, pick: random.Random) -> list[tuple[str, str, str]]:
    """(kind, question, answer) for each of `KINDS`."""
    colour = {
        "bar": "What colour are the bars?",
        "line": "What colour is the line?",
        "pie": "What colour is the largest slice?",
    }[chart.type]
    one = pick.choice(chart.items)
    left, right = pick.sample(chart.items, 2)
    return [
        ("type", "What type of chart is this?", chart.type),
        ("count", f"How many {NOUNS[chart.type]} are there?", str(len(chart.items))),
        ("colour", colour, chart.largest.colour),
        ("title", "What is the title?", chart.title),
        ("month", "Which month is shown?", chart.month),
        ("largest", "Which label has the largest value?", chart.largest.label),
        ("value", f"What is the value of {one.label}?", str(one.value)),
        (
            "compare",
            f"Is {left.label} larger than {right.label}?",
            "yes" if left.value > right.value else "no",
        ),
    ]


def draw(chart: Chart) -> bytes:
    """The chart as PNG bytes."""
    image = Image.new("RGB", (SIZE, SIZE), PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((8, 4), chart.title, INK, _font(24))
    pen.text((SIZE - 8, 4), chart.month, INK, _font(24), anchor="ra")
    if chart.type == "pie":
        _draw_pie(pen, chart.items)
    else:
        _draw_axes(pen, chart.items, bars=chart.type == "bar")
    return to_png(image)


LEFT, RIGHT, TOP, BASE = 12, 246, 58, 224  # px, the frame of bars and lines


def _draw_axes(pen: ImageDraw.ImageDraw, items: tuple[Item, ...], *, bars: bool) -> None:
    pen.line([(LEFT, TOP - 12), (LEFT, BASE), (RIGHT, BASE)], INK, 2)
    step = (RIGHT - LEFT) / len(items)
    points = [
        (LEFT + (number + 0.5) * step, BASE - (BASE - TOP) * item.value / 100)
        for number, item in enumerate(items)
    ]
    colour = COLOURS[items[0].colour]
    if bars:
        half = min(step * 0.7, 34) / 2
        for x, y in points:
            pen.rectangle([x - half, y, x + half, BASE - 1], colour)
    else:
        pen.line(points, colour, 6, joint="curve")
        for x, y in points:
            pen.ellipse([x - 6, y - 6, x + 6, y + 6], colour)
    for (x, y), item in zip(points, items, strict=True):
        pen.text((x, BASE + 4), item.label, INK, _font(17 if len(items) < 6 else 15), anchor="ma")
        pen.text((x, y - (3 if bars else 8)), str(item.value), INK, _font(16), anchor="md")


MIDDLE, RADIUS = (128, 143), 74  # px, of a pie


def _draw_pie(pen: ImageDraw.ImageDraw, items: tuple[Item, ...]) -> None:
    """Slices clockwise from the top, with the value inside and the label outside."""
    total = sum(item.value for item in items)
    x, y = MIDDLE
    box = [x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS]
    start = -90.0
    for item in items:
        end = start + 360 * item.value / total
        pen.pieslice(box, start, end, COLOURS[item.colour], PAPER)
        angle = math.radians((start + end) / 2)
        across, down = RADIUS * math.cos(angle), RADIUS * math.sin(angle)
        inside = (x + 0.72 * across, y + 0.72 * down)
        pen.text(inside, str(item.value), PAPER, _font(15), anchor="mm")
        outside = (x + 1.27 * across, y + 1.2 * down)
        pen.text(outside, item.label, INK, _font(16), anchor="mm")
        start = end


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
