"""Stamped text is compared with what Pillow draws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageDraw

from ocrdata.sources.faces import GRID, INK, NATURAL, PAPER, PATCH, SPACINGS, Face, Grey, face_of
from ocrdata.sources.fonts import FontFile, find_fonts
from ocrdata.sources.typesetting import ALPHABET

FONTS = find_fonts(["train", "held-out"])
VISIBLE = ALPHABET + "., "
fonts = st.sampled_from(FONTS)
sizes = st.integers(8, 28)


def paper(height: int, width: int) -> Grey:
    return np.full((height, width), PAPER, np.uint8)


def by_pillow(font: FontFile, size: int, text: str, x: int, baseline: int) -> Grey:
    """Character by character, the darker of two that overlap, without kerning."""
    image = Image.new("L", (400, 60), PAPER)
    drawn = font.at(size)
    for character in text:
        one = Image.new("L", image.size, PAPER)
        ImageDraw.Draw(one).text((x, baseline), character, INK, drawn, anchor="ls")
        image = ImageChops.darker(image, one)
        x += round(drawn.getlength(character))
    return np.asarray(image)


@settings(max_examples=30)
@given(fonts, sizes, st.text(VISIBLE, min_size=1, max_size=12))
def test_natural_text_is_what_pillow_draws(font: FontFile, size: int, text: str) -> None:
    face = face_of(font, size, VISIBLE, NATURAL)
    canvas = paper(60, 400)
    face.stamp(canvas, text, 20, 10)
    assert (canvas == by_pillow(font, size, text, 20, 10 + ink_above(font, size))).all()


def ink_above(font: FontFile, size: int) -> int:
    """Px of ink above the baseline, of the highest character that is visible."""
    image = Image.new("L", (3_000, 60), PAPER)
    ImageDraw.Draw(image).text((30, 40), VISIBLE, INK, font.at(size), anchor="ls")
    return 40 - int(np.flatnonzero((np.asarray(image) < PAPER).any(axis=1))[0])


@settings(max_examples=30)
@given(fonts, sizes, st.text(ALPHABET, min_size=1, max_size=6))
def test_in_a_grid_each_character_is_in_the_middle_of_its_cell(
    font: FontFile, size: int, text: str
) -> None:
    face = face_of(font, size, ALPHABET, GRID)
    cell, height = face.widest, face.line_height
    assert cell % PATCH == 0 and height % PATCH == 0
    canvas = paper(3 * height, cell * len(text) + 40)
    face.stamp(canvas, text, 20, height)
    assert (canvas[:height] == PAPER).all() and (canvas[2 * height :] == PAPER).all()
    for number, character in enumerate(text):
        ink = np.flatnonzero((canvas[:, 20 + number * cell :][:, :cell] < PAPER).any(axis=0))
        left, right = ink[0], cell - 1 - ink[-1]
        assert abs(left - right) <= 1, (character, left, right)
    assert (canvas[:, :20] == PAPER).all() and (canvas[:, -20:] == PAPER).all()


@settings(max_examples=40)
@given(
    fonts, sizes, st.sampled_from(SPACINGS), st.integers(-8, 8), st.integers(-8, 8),
    st.text(ALPHABET, min_size=1, max_size=4), st.integers(1, 3),
)  # fmt: skip
def test_places_are_those_of_the_shifted_grid_whose_ink_is_inside_or_moved_inside(
    font: FontFile, size: int, spacing: str, dx: int, dy: int, text: str, lines: int
) -> None:
    face, side = face_of(font, size, ALPHABET, spacing), 96
    starts = face.starts(side, dx, face.width(text))
    tops = face.tops(side, dy, lines)
    near = 1 if spacing == GRID else 0
    for x in starts:
        assert (x - dx) % PATCH == 0
        assert x - face.before >= -near and x + face.width(text) + face.after <= side + near
    for y in tops:
        assert (y - dy) % PATCH == 0
    for x, y in ((x, y) for x in starts for y in tops):
        placed = [(text, x, y + number * face.line_height) for number in range(lines)]
        moved = face.inside(placed, side)
        assert max(map(abs, moved)) <= near
        wide = paper(side + 200, side + 200)
        for line, left, top in placed:
            face.stamp(wide, line, left + moved[0] + 100, top + moved[1] + 100)
        assert ink_of(wide[100:-100, 100:-100]) == ink_of(wide), "ink outside the image"
    step = face.widest if spacing == GRID else PATCH
    if starts:
        for beyond in (starts[0] - step, starts[-1] + step):
            assert (
                beyond - face.before < -near or beyond + face.width(text) + face.after > side + near
            )


def ink_of(canvas: Grey) -> int:
    return int((PAPER - canvas.astype(int)).sum())


def test_ink_outside_the_canvas_is_cut_off() -> None:
    face = face_of(FONTS[0], 20, ALPHABET, NATURAL)
    whole, part = paper(60, 90), paper(20, 30)
    face.stamp(whole, "WQ", 20, 20)
    for x, y in ((-5, -7), (10, 4), (200, 0), (0, 200), (-200, 0), (0, -200)):
        part = paper(20, 30)
        face.stamp(part, "WQ", x, y)
        expected = np.pad(whole, 300, constant_values=PAPER)
        expected = expected[320 - y : 340 - y, 320 - x : 350 - x]
        assert (part == expected).all(), (x, y)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_face_is_rendered_once(spacing: str) -> None:
    face = face_of(FONTS[1], 14, "abc", spacing)
    assert face is face_of(FONTS[1], 14, "abc", spacing)
    assert isinstance(face, Face) and face.width("abca") == sum(map(face.advance, "abca"))
