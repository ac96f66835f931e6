import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ocrdata.errors import UsageError
from ocrdata.images.decode import decode_rgb, read_header
from ocrdata.sample import check, text_of
from ocrdata.sources.faces import PAPER, Face, Grey
from ocrdata.sources.fonts import find_fonts
from ocrdata.sources.pages import PagesOptions, PagesSource, heading_size, make_blocks, make_sample
from ocrdata.sources.spans import Span
from ocrdata.sources.typesetting import STRINGS
from ocrdata.sources.words import HELD_OUT, TRAIN, side_of

FONTS = find_fonts(["train", "held-out"])
CASES = {
    "plain": PagesOptions(),
    "fonts": PagesOptions(width=400, height=300, fonts=FONTS, glyph_size=Span(10, 16)),
    "held out": PagesOptions(height=256, words=HELD_OUT),
    "strings": PagesOptions(height=200, text=STRINGS, characters=Span(1, 8)),
}


@pytest.mark.parametrize("case", CASES)
def test_pages_are_valid_and_their_words_of_one_side(case: str) -> None:
    options = CASES[case]
    samples = [make_sample(options, 5, row) for row in range(8)]
    for sample in samples:
        check(sample)
        info = read_header(sample.images[0])
        assert (info.format, info.width, info.height) == ("png", options.width, options.height)
        text = text_of(sample.messages[1])
        assert {side_of(word) for word in text.split()} <= {options.words, None}
        assert "  " not in text and text == text.strip()
        blocks = text.split("\n\n")
        assert "\n" not in "".join(blocks)
        assert sample.meta["headings"] < len(blocks) <= sample.meta["lines"]
    assert any(sample.meta["headings"] for sample in samples)
    assert len({text_of(sample.messages[1]) for sample in samples}) == len(samples)


@pytest.mark.parametrize("case", CASES)
def test_a_reader_that_knows_the_font_finds_the_answer_line_by_line(case: str) -> None:
    options = CASES[case]
    for row in range(3):
        sample = make_sample(options, 5, row)
        image = decode_rgb(sample.images[0])[..., 0]
        font = next(font for font in options.fonts if font.name == sample.meta["font"])
        size = sample.meta["glyph_size"]
        faces = options.face(font, size), options.face(font, heading_size(size))
        y, used = sample.meta["margins"][1], []
        for block in text_of(sample.messages[1]).split("\n\n"):
            rest = block.split(" ")
            while rest:
                face, count, y = next_line(image, faces, rest, sample.meta["margins"][0], y)
                used.append((face, len(rest) == len(block.split(" "))))
                rest = rest[count:]
        assert (image[y:] == PAPER).all()
        assert len(used) == sample.meta["lines"]
        assert sum(face is faces[1] for face, _ in used) == sample.meta["headings"]
        assert all(first for face, first in used if face is faces[1])


def next_line(
    image: Grey, faces: tuple[Face, Face], words: list[str], left: int, y: int
) -> tuple[Face, int, int]:
    """Face and number of words of the line whose ink begins first below `y`, and its end."""
    ink = y + int(np.flatnonzero((image[y:] < PAPER).any(axis=1))[0])
    for face in faces:
        for count in range(min(len(words), 20), 0, -1):
            line = np.full((face.ink_height, image.shape[1]), PAPER, np.uint8)
            face.stamp(line, " ".join(words[:count]), left + face.before, 0)
            top = ink - int(np.flatnonzero((line < PAPER).any(axis=1))[0])
            found = image[max(top, 0) : top + face.ink_height]
            if found.shape == line.shape and (found == line).all():
                return face, count, top + face.line_height
    raise AssertionError(f"no line at {ink} px begins with {words[:3]}")


def test_no_page_ends_with_a_heading_and_no_heading_follows_another() -> None:
    options = CASES["plain"]
    faces = options.face(FONTS[0], 16), options.face(FONTS[0], heading_size(16))
    for row in range(12):
        blocks = list(make_blocks(options, faces, (10, 20), random.Random(row)))
        kinds = [block.is_heading for block in blocks]
        assert not kinds[-1] and not any(a and b for a, b in pairwise(kinds))
        for above, below in pairwise(blocks):
            assert above.top + len(above.lines) * above.face.line_height <= below.top
        last = blocks[-1]
        end = last.top + len(last.lines) * last.face.line_height
        assert end <= options.height - 20 < end + 2 * faces[0].line_height
        for block in blocks:
            room = options.width - 20 - block.face.before - block.face.after
            assert all(block.face.width(line) <= room for line in block.lines)
            assert block.is_heading or len(block.lines) <= 6


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"height": 40}, "--height 40: a heading and a line of Aileron at 16 px take"),
        ({"width": 200}, "--width 200: a word of 9 characters of Aileron at 24 px"),
        ({"words": HELD_OUT, "characters": Span(1, 9)}, "held-out"),
    ],
)
def test_pages_without_room_are_refused(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        PagesOptions(**wrong)


def test_the_smallest_page_has_a_line() -> None:
    options = PagesOptions(width=300, height=70)
    for row in range(20):
        check(make_sample(options, 0, row))
    assert PagesSource(8, options).provenance != PagesSource(8, PagesOptions(width=301)).provenance
    assert PagesSource(8, options).provenance["words"] == TRAIN
