from typing import Any

import numpy as np
import pytest

from ocrdata.errors import UsageError
from ocrdata.images.decode import decode_rgb, read_header
from ocrdata.sample import check, text_of
from ocrdata.sources.faces import PAPER
from ocrdata.sources.fonts import find_fonts
from ocrdata.sources.lines import LinesOptions, LinesSource, make_sample
from ocrdata.sources.spans import Span
from ocrdata.sources.typesetting import STRINGS
from ocrdata.sources.words import HELD_OUT, TRAIN, side_of

FONTS = find_fonts(["train", "held-out"])
BY_NAME = {font.name: font for font in FONTS}
CASES = {
    "plain": LinesOptions(),
    "several": LinesOptions(
        width=512, height=160, lines=Span(1, 4), fonts=FONTS, glyph_size=Span(12, 24)
    ),
    "strings": LinesOptions(text=STRINGS, alphabet="abc123", characters=Span(1, 4), height=32),
    "held out": LinesOptions(words=HELD_OUT, lines=Span(2, 2), characters=Span(3, 6)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_answer_drawn_at_the_place_is_the_image(case: str) -> None:
    options = CASES[case]
    samples = [make_sample(options, 3, row) for row in range(25)]
    for sample in samples:
        check(sample)
        info = read_header(sample.images[0])
        assert (info.format, info.width, info.height) == ("png", options.width, options.height)
        lines = text_of(sample.messages[1]).split("\n")
        assert len(lines) == sample.meta["lines"] and len(lines) in options.lines.values
        words = [word for line in lines for word in line.split(" ")]
        assert {side_of(word) for word in words} <= {options.words, None}
        assert all(len(word) in options.characters.values for word in words)
        face = options.face(BY_NAME[sample.meta["font"]], sample.meta["glyph_size"])
        x, y = sample.meta["place"]
        # On paper that is larger, so that ink beyond the image would be seen.
        paper = np.full((options.height + 200, options.width + 200), PAPER, np.uint8)
        for number, line in enumerate(lines):
            face.stamp(paper, line, x + 100, y + 100 + number * face.line_height)
        assert (paper[100:-100, 100:-100] == decode_rgb(sample.images[0])[..., 0]).all()
        paper[100:-100, 100:-100] = PAPER
        assert (paper == PAPER).all(), "ink outside the image"
    assert len({text_of(sample.messages[1]) for sample in samples}) == len(samples)


def test_lines_are_of_all_lengths_and_everywhere() -> None:
    options = CASES["plain"]
    samples = [make_sample(options, 0, row) for row in range(120)]
    counts = {len(text_of(sample.messages[1]).split()) for sample in samples}
    assert {1, 2, 3} <= counts
    x, y = np.array([sample.meta["place"] for sample in samples]).T
    assert x.max() - x.min() > options.width / 2 and y.max() - y.min() > options.height / 2
    assert len(set(x % 16)) > 12 and len(set(y % 16)) > 12


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"lines": Span(1, 4)}, "--height 64: 4 lines of Aileron at 16 px take"),
        ({"height": 10}, "--height 10: 1 lines"),
        ({"width": 100}, "--width 100: a word of 9 characters"),
        ({"glyph_size": Span(16, 60)}, "at .. px"),
    ],
)
def test_lines_that_do_not_fit_are_refused(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        LinesOptions(**wrong)


def test_training_and_held_out_lines_share_no_word_of_three_letters() -> None:
    words = {}
    for side in (TRAIN, HELD_OUT):
        options = LinesOptions(words=side, characters=Span(3, 3), width=512)
        texts = [text_of(make_sample(options, 0, row).messages[1]) for row in range(150)]
        words[side] = {word.lower() for text in texts for word in text.split()}
    assert not words[TRAIN] & words[HELD_OUT]
    assert min(map(len, words.values())) > 100


def test_provenance_has_every_option() -> None:
    plain = LinesSource(8, LinesOptions()).provenance
    for change in (
        {"width": 300}, {"height": 65}, {"lines": Span(1, 2)}, {"fonts": FONTS[:2]},
        {"glyph_size": Span(12, 16)}, {"text": STRINGS}, {"characters": Span(3, 4)},
        {"words": HELD_OUT},
    ):  # fmt: skip
        options: dict[str, Any] = dict(change)
        assert LinesSource(8, LinesOptions(**options)).provenance != plain, change
