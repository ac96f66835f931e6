"""A reader that knows the font, the size and the shift reads the answers off the images."""

import string
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from ocrdata.errors import UsageError
from ocrdata.images.decode import decode_rgb, read_header
from ocrdata.sample import IMAGE_PART, check, text_of
from ocrdata.sources.faces import NATURAL, PAPER, Face, Grey
from ocrdata.sources.fonts import BUILT_IN, find_fonts
from ocrdata.sources.glyphs import (
    ANYWHERE,
    LEFT,
    QUESTION,
    GlyphOptions,
    GlyphsSource,
    make_sample,
)
from ocrdata.sources.spans import Span
from ocrdata.sources.words import HELD_OUT, TRAIN, side_of

FONTS = find_fonts(["train", "held-out"])
BY_NAME = {font.name: font for font in FONTS}

CAPITALS, DIGITS = string.ascii_uppercase, string.digits
GRIDS = {
    "plain": GlyphOptions(),
    "shifted": GlyphOptions(fonts=FONTS, glyph_size=Span(10, 13), offset=8, place=ANYWHERE),
    "long strings": GlyphOptions(characters=Span(5, 16)),
    "several": GlyphOptions(
        alphabets=(CAPITALS, DIGITS, CAPITALS + DIGITS), lines=Span(1, 3), images=3, offset=1,
        place=ANYWHERE,
    ),
    "large": GlyphOptions(size=128, glyph_size=Span(24, 24), characters=Span(1, 9), offset=3),
}  # fmt: skip
NATURALS = {
    "natural": GlyphOptions(
        fonts=FONTS, glyph_size=Span(8, 16), spacing=NATURAL, offset=8, place=ANYWHERE
    ),
    "held out": GlyphOptions(
        size=80, characters=Span(3, 12), spacing=NATURAL, words=HELD_OUT, offset=1
    ),
}
SEVERAL = GlyphOptions(
    spacing=NATURAL, lines=Span(2, 2), glyph_size=Span(18, 18), size=96, images=2
)
CASES = {**GRIDS, **NATURALS, "natural lines": SEVERAL}


class Drawn(NamedTuple):
    """One image of a sample with all that is known of it."""

    image: Grey
    answer: str
    face: Face
    shift: tuple[int, int]


def drawn(options: GlyphOptions, rows: int) -> Iterator[Drawn]:
    for row in range(rows):
        sample = make_sample(options, 7, row)
        for number, data in enumerate(sample.images):
            meta = sample.meta["images"][number]
            yield Drawn(
                decode_rgb(data)[..., 0],
                text_of(sample.messages[2 * number + 1]),
                options.face(BY_NAME[meta["font"]], meta["glyph_size"]),
                meta["offset"],
            )


def stamped(face: Face, text: str, like: Grey, x: int = 0, y: int = 0) -> Grey:
    canvas = np.full_like(like, PAPER)
    face.stamp(canvas, text, x, y)
    return canvas


@pytest.mark.parametrize("case", GRIDS)
def test_a_reader_of_cells_reads_the_answer(case: str) -> None:
    options = GRIDS[case]
    for image, answer, face, (dx, dy) in drawn(options, 20):
        paper = np.pad(image, 64, constant_values=PAPER)
        cell = image[: face.line_height, : face.widest]
        known = {stamped(face, one, cell).tobytes(): one for one in options.characters_drawn}
        lines = []
        starts = face.starts(options.size, dx, face.widest)
        for y in face.tops(options.size, dy, 1):
            cells = [paper[y + 64 :, x + 64 :][: face.line_height, : face.widest] for x in starts]
            lines.append([known[found.tobytes()] if found.min() < PAPER else "" for found in cells])
        if options.place == LEFT:
            assert all(line[0] for line in lines if any(line)), answer
        found = [text for line in lines if (text := "".join(line))]
        assert ("" if options.lines.high == 1 else "\n").join(found) == answer


@pytest.mark.parametrize("case", NATURALS)
def test_the_answer_drawn_at_a_place_of_the_shifted_grid_is_the_image(case: str) -> None:
    options = NATURALS[case]
    broken = 0
    for image, answer, face, (dx, dy) in drawn(options, 25):
        lines = [""]
        for one in answer:
            if not face.starts(options.size, dx, face.width(lines[-1] + one)):
                lines.append("")
            lines[-1] += one
        broken += len(lines) > 1
        starts = face.starts(options.size, dx, 0)
        assert any(
            (np.minimum.reduce([
                stamped(face, line, image, x, y + number * face.line_height)
                for number, line in enumerate(lines)
            ]) == image).all()
            for x in (starts[:1] if options.place == LEFT else starts)
            for y in face.tops(options.size, dy, len(lines))
        ), answer  # fmt: skip
    assert case != "held out" or broken


def test_naturally_spaced_lines_do_not_overlap() -> None:
    for image, answer, face, (dx, dy) in drawn(SEVERAL, 12):
        above, below = answer.split("\n")
        x = face.starts(SEVERAL.size, dx, 0)[0]
        assert any(
            (np.minimum(stamped(face, above, image, x, one), stamped(face, below, image, x, other))
             == image).all()
            for one in face.tops(SEVERAL.size, dy, 1)
            for other in face.tops(SEVERAL.size, dy, 1)
            if other - one >= face.line_height
        ), answer  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_rows_are_valid_samples_of_the_options(case: str) -> None:
    options = CASES[case]
    samples = [make_sample(options, 0, row) for row in range(50)]
    for sample in samples:
        check(sample)
        assert len(sample.images) == sample.turns == len(sample.meta["images"]) == options.images
        assert sample.meta["kinds"] == ["glyphs"] * options.images
        assert sample.meta["words"] == options.words
        for number, data in enumerate(sample.images):
            info = read_header(data)
            assert (info.format, info.width, info.height) == ("png", options.size, options.size)
            question, answer = sample.messages[2 * number :][:2]
            assert question["content"][0] == IMAGE_PART and text_of(question) == QUESTION
            strings = text_of(answer).split("\n")
            assert len(strings) in options.lines.values
            for text in strings:
                assert len(text) in options.characters.values
                assert any(set(text) <= set(alphabet) for alphabet in options.alphabets)
                assert side_of(text) in (options.words, None)
        for meta in sample.meta["images"]:
            assert max(map(abs, meta["offset"])) <= options.offset
            assert meta["glyph_size"] in options.glyph_size.values
    assert len({text_of(sample.messages[1]) for sample in samples}) > 25
    fonts = {meta["font"] for sample in samples for meta in sample.meta["images"]}
    assert fonts == {font.name for font in options.fonts}


def test_provenance_has_every_option_and_what_pixels_depend_on() -> None:
    def provenance(**changed: Any) -> Any:
        return GlyphsSource(8, GlyphOptions(**changed), seed=3).provenance

    plain = provenance()
    changes: list[dict[str, Any]] = [
        {"size": 80}, {"images": 2}, {"lines": Span(1, 2)}, {"place": ANYWHERE},
        {"characters": Span(1, 3)}, {"alphabets": ("abc",)}, {"fonts": FONTS[:2]},
        {"glyph_size": Span(12, 16)}, {"offset": 1}, {"spacing": NATURAL},
        {"words": HELD_OUT, "characters": Span(3, 3)},
    ]  # fmt: skip
    for change in changes:
        assert provenance(**change) != plain, change
    assert {key for change in changes for key in change} <= plain.keys()
    assert {"pillow", "freetype", "zlib"} <= plain.keys()
    assert plain["fonts"] == [BUILT_IN]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"offset": 9}, "--offset 9: out of range 0 to 8"),
        ({"offset": -1}, "--offset -1"),
        ({"size": 8}, "--size 8: .* 16 to 4096"),
        ({"size": 5_000}, "--size 5000"),
        ({"size": 32, "characters": Span(1, 5)}, "--size 32: no room for 1 x 5 .* 2 fit in a line"),
        ({"glyph_size": Span(12, 40)}, "1 x 4 characters of Aileron at 3. px"),
        ({"spacing": NATURAL, "glyph_size": Span(60, 60)}, "at 60 px .* 0 fit in a line"),
        ({"words": HELD_OUT}, "held-out .* 3 characters, not 1"),
        ({"alphabets": ("abc", "Жa")}, r"no glyph for '\\u0416'"),
        ({"alphabets": ("",)}, "--alphabet"),
        ({"images": 0}, "--per-sample 0"),
        ({"lines": Span(1, 5)}, "no room for 5 x 4"),
        ({"lines": Span(2, 2), "characters": Span(1, 5)}, "2 x 5 .* 4 fit in a line"),
    ],
)
def test_options_that_cannot_be_drawn_are_refused(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        GlyphOptions(**wrong)
    assert "\n" not in str(refused.value)


def test_training_and_held_out_strings_of_three_and_more_characters_are_disjoint() -> None:
    few = "abcAB1"  # so few characters that the same strings are drawn again and again
    drawn = {}
    for words in (TRAIN, HELD_OUT):
        options = GlyphOptions(alphabets=(few,), characters=Span(3, 4), words=words)
        samples = [make_sample(options, seed, row) for seed in (0, 1) for row in range(600)]
        drawn[words] = {text_of(sample.messages[1]).lower() for sample in samples}
    assert not drawn[TRAIN] & drawn[HELD_OUT]
    assert len(drawn[TRAIN]) > 150 and len(drawn[HELD_OUT]) > 20
