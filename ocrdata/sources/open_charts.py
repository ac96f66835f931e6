"""Charts whose labels, titles and values are drawn at random for each: what is asked must be read.

Row i is a function of (seed, i) and the options. A label is three capital letters, a title three
to five, a value two digits; which words may appear is decided by `words.py`. Characters lie in
cells of the encoder's patches, each string shifted by up to `offset` px, in the font of
Pillow: easy to read, so that two CPU cores suffice. `tables.py` asks the same about words.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from ocrdata.errors import UsageError
from ocrdata.sample import IMAGE_PART, Message, Sample, text_part
from ocrdata.sources.spans import Span
from ocrdata.sources.synthetic import DrawnSource, to_png
from ocrdata.sources.words import TRAIN, draw, random_string

VERSION = 1  # increase it with every change of a row

TYPES = ("column", "bar", "line")
KINDS = ("table", "title", "type", "count", "largest", "value", "compare")

CELL = 16  # px, a character's: one patch of the encoder
COLUMN = 64  # px between two items of a column or line chart: one feature of the encoder
SPACE = 48  # px between two bars
GLYPH = 16  # px, em of the font
LABEL, TITLE = 3, (3, 4, 5)  # characters
MAX_ITEMS, MAX_IMAGES, MAX_SIZE = 16, 64, 4_096
MAX_OFFSET = 8  # px
LOOKED_UP = ("value", "compare")
"""Questions about labels that are named; the others are about what is written or drawn."""

LOOK_UPS, ONLY_TABLE = 0.4, 0.4
"""Share of the charts whose questions are of `LOOKED_UP`, and of the others those with no question
but the table. A question that is always one of many is not answered when it is asked alone."""

COLOURS = (
    (214, 39, 40), (31, 90, 200), (34, 150, 50), (255, 140, 0), (140, 60, 180), (120, 72, 40),
)  # fmt: skip
INK, PAPER = (30, 30, 30), (255, 255, 255)


class Item(NamedTuple):
    """One bar or point."""

    label: str
    value: int


@dataclass(frozen=True)
class Chart:
    """Everything that is drawn, but for the shifts of its strings. No two values are equal."""

    type: str
    title: str
    items: tuple[Item, ...]
    colour: tuple[int, int, int]

    @property
    def table(self) -> str:
        """Labels and values as text."""
        return "; ".join(f"{item.label} {item.value}" for item in self.items)


@dataclass(frozen=True)
class OpenChartOptions:
    """What is drawn: px of the square image's side, items of a chart, charts of a sample, kinds of
    questions, the largest shift of a string in px, and the side of the words.

    Raises UsageError where items do not fit the image, or a value is out of range.
    """

    size: int = 256
    items: Span = Span(2, 4)
    images: int = 1
    questions: tuple[str, ...] = KINDS
    offset: int = 1
    words: str = TRAIN

    def __post_init__(self) -> None:
        if not 2 * COLUMN <= self.size <= MAX_SIZE:
            raise UsageError(f"--size {self.size}: out of range {2 * COLUMN} to {MAX_SIZE} px")
        fits = min(self.size // COLUMN, (self.size - COLUMN - CELL) // SPACE + 1, MAX_ITEMS)
        if self.items.high > fits:
            raise UsageError(f"--items {self.items}: {self.size} px have room for {fits} items")
        if not 1 <= self.images <= MAX_IMAGES:
            raise UsageError(f"--per-sample {self.images}: out of range 1 to {MAX_IMAGES}")
        if not 0 <= self.offset <= MAX_OFFSET:
            raise UsageError(f"--offset {self.offset}: out of range 0 to {MAX_OFFSET} px")
        if not self.questions:
            raise UsageError(f"--questions: choose from {', '.join(KINDS)}")
        if "compare" in self.questions and self.items.low < 2:
            raise UsageError("--questions compare needs charts of at least 2 items: see --items")

    @property
    def provenance(self) -> dict[str, Any]:
        """The options as JSON values."""
        return {
            "size": self.size,
            "items": str(self.items),
            "images": self.images,
            "questions": list(self.questions),
            "offset": self.offset,
            "words": self.words,
        }


class OpenChartsSource(DrawnSource[OpenChartOptions]):
    """Charts and questions, as the options say."""

    name = "open-charts"
    version = VERSION

    def make(self, row: int) -> Sample:
        """See `make_sample`."""
        return make_sample(self.options, self.seed, row)


def make_sample(options: OpenChartOptions, seed: int, row: int) -> Sample:
    """Charts, questions and answers of one row; `meta` has each turn's kind and what is drawn."""
    pick = random.Random(f"open-charts-{VERSION}-{seed}-{row}")
    messages: list[Message] = []
    kinds, images, drawn = [], [], []
    for _ in range(options.images):
        chart = make_chart(pick, options.items, options.words)
        images.append(paint(chart, options.size, options.offset, pick))
        drawn.append({"type": chart.type, "title": chart.title, "items": list(chart.items)})
        for number, (kind, question, answer) in enumerate(choose(chart, options.questions, pick)):
            kinds.append(kind)
            image = [IMAGE_PART] if number == 0 else []
            messages.append({"role": "user", "content": [*image, text_part(question)]})
            messages.append({"role": "assistant", "content": [text_part(answer)]})
    meta = {"kinds": kinds, "words": options.words, "charts": drawn}
    return Sample(messages, images, source="open-charts", meta=meta)


def make_chart(pick: random.Random, items: Span, words: str) -> Chart:
    """A chart with words of one side."""

    def word(length: int) -> str:
        return draw(lambda: random_string(pick, string.ascii_uppercase, length), words)

    count = pick.choice(items.values)
    labels: list[str] = []
    while len(labels) < count:
        if (label := word(LABEL)) not in labels:
            labels.append(label)
    values = pick.sample(range(10, 100), count)
    return Chart(
        type=pick.choice(TYPES),
        title=word(pick.choice(TITLE)),
        items=tuple(map(Item, labels, values)),
        colour=pick.choice(COLOURS),
    )


def choose(chart: Chart, kinds: tuple[str, ...], pick: random.Random) -> list[tuple[str, str, str]]:
    """(kind, question, answer) of a chart's turns, of the chosen kinds: the table alone, what else
    is written, or the look-ups; shuffled. No look-up comes after a table to copy from; without
    look-ups, the table is also one of many."""
    written = [kind for kind in kinds if kind not in LOOKED_UP]
    looked_up = [kind for kind in kinds if kind in LOOKED_UP]
    if looked_up and (not written or pick.random() < LOOK_UPS):
        asked = looked_up
    elif "table" in written and pick.random() < ONLY_TABLE:
        asked = ["table"]
    else:
        asked = [kind for kind in written if kind != "table" or not looked_up]
    turns = [(kind, *turn) for kind in asked for turn in ask(chart, kind, pick)]
    pick.shuffle(turns)
    return turns


def ask(chart: Chart, kind: str, pick: random.Random) -> list[tuple[str, str]]:
    """Questions and answers of one kind: of `value` one for each item, of the others one."""
    if kind == "value":
        return [(f"What is the value of {label}?", f"{label} {n}") for label, n in chart.items]
    if kind == "compare":
        left, right = pick.sample(chart.items, 2)
        larger = max(left, right, key=lambda item: item.value)
        numbers = f"{left.label} {left.value}, {right.label} {right.value}"
        question = f"Which is larger, {left.label} or {right.label}?"
        return [(question, f"{numbers}: {larger.label}")]
    largest = max(chart.items, key=lambda item: item.value)
    return [
        {
            "table": ("Write the table.", chart.table),
            "title": ("What is the title?", chart.title),
            "type": ("What type of chart is this?", chart.type),
            "count": ("How many items are there?", str(len(chart.items))),
            "largest": ("Which is the largest?", largest.label),
        }[kind]
    ]


def paint(chart: Chart, size: int, offset: int, pick: random.Random) -> bytes:
    """The chart as PNG bytes, its strings shifted by up to `offset` px each."""
    image = Image.new("RGB", (size, size), PAPER)
    pen = ImageDraw.Draw(image)

    def write(text: str, x: int, y: int) -> None:
        x, y = x + pick.randint(-offset, offset), y + pick.randint(-offset, offset)
        for number, character in enumerate(text):
            at = (x + CELL * number + CELL // 2, y + CELL // 2)
            pen.text(at, character, INK, _font(), anchor="mm")

    write(chart.title, 0, 0)
    if chart.type == "bar":
        left, longest = 7 * CELL, size - 8 * CELL
        for number, (label, value) in enumerate(chart.items):
            y = COLUMN + SPACE * number
            write(label, 0, y)
            write(str(value), 4 * CELL, y)
            pen.rectangle([left, y, left + max(longest * value // 100, 1), y + CELL], chart.colour)
        pen.line([(left - 3, COLUMN - 4), (left - 3, size - 6)], INK, 2)
    else:
        base = size - 2 * CELL - 4
        points = []
        for number, (label, value) in enumerate(chart.items):
            x, top = COLUMN * number, base - (base - 2 * CELL) * value // 100
            write(str(value), x, size - 2 * CELL)
            write(label, x, size - CELL)
            if chart.type == "column":
                pen.rectangle([x + 2, top, x + 46, base], chart.colour)
            points.append((x + 24, top))
        if chart.type == "line":
            pen.line(points, INK, 5)
            for x, y in points:
                pen.ellipse([x - 9, y - 9, x + 9, y + 9], chart.colour)
        pen.line([(0, base), (size, base)], INK, 2)
    return to_png(image)


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=GLYPH)
