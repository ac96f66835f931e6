"""Short strings on small squares, on which an encoder learns to read before it sees documents.

Row i is a function of (seed, i), the options, the font files and `fonts.versions`. Characters lie
in the cells of a grid (`faces.py`), or as far apart as the font has them; the grid is shifted by up
to `offset` px to each side, which makes reading harder. No ink is cut off at the edges. A single
string that does not fit one line goes on in the next ones; of several, each has a line of its own,
and a newline is between them in the answer.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ocrdata.errors import UsageError
from ocrdata.sample import IMAGE_PART, Message, Sample, text_part
from ocrdata.sources.faces import GRID, PAPER, PATCH, Face, Grey, face_of
from ocrdata.sources.fonts import BUILT_IN, FontFile, check_characters
from ocrdata.sources.spans import Span
from ocrdata.sources.synthetic import DrawnSource, to_png
from ocrdata.sources.words import TRAIN, check_enough, draw, random_string

VERSION = 1  # increase it with every change of a row

ALPHABET = string.ascii_letters + string.digits
QUESTION = "Read."
LEFT, ANYWHERE = "left", "anywhere"
"""Where strings start: at the left end of a line, or at any place of the grid that they fit."""

MAX_SIZE, MAX_IMAGES = 4_096, 256  # px, images of a sample
MAX_OFFSET = PATCH // 2  # px; a larger one is a smaller one from the next patch


@dataclass(frozen=True)
class GlyphOptions:
    """What is drawn, and how: px of the square images' side, images of a sample, strings of an
    image, characters of a string, which are all of one of the alphabets, fonts and their sizes (em,
    px), the largest shift of the grid in px, and where strings start.

    Raises UsageError where strings do not fit the image, or where there are none.
    """

    size: int = 64
    images: int = 1
    lines: Span = Span(1, 1)
    characters: Span = Span(1, 4)
    alphabets: tuple[str, ...] = (ALPHABET,)
    fonts: tuple[FontFile, ...] = (FontFile(BUILT_IN),)
    glyph_size: Span = Span(16, 16)
    offset: int = 0
    spacing: str = GRID
    place: str = LEFT
    words: str = TRAIN

    def __post_init__(self) -> None:
        for flag, value, least, most in (
            ("offset", self.offset, 0, MAX_OFFSET),
            ("size", self.size, PATCH, MAX_SIZE),
            ("per-sample", self.images, 1, MAX_IMAGES),
        ):
            if not least <= value <= most:
                raise UsageError(f"--{flag} {value}: out of range {least} to {most}")
        for alphabet in self.alphabets:
            check_characters(self.fonts, alphabet)
            check_enough(alphabet, self.characters.values, self.words)
        for font in self.fonts:
            for glyph_size in self.glyph_size.values:
                self._check_room(font, glyph_size)

    @property
    def characters_drawn(self) -> str:
        """Those of all alphabets."""
        return "".join(dict.fromkeys("".join(self.alphabets)))

    def face(self, font: FontFile, glyph_size: int) -> Face:
        """The characters in one font and size."""
        return face_of(font, glyph_size, self.characters_drawn, self.spacing)

    def _check_room(self, font: FontFile, glyph_size: int) -> None:
        """Check that the longest strings fit at every shift, however wide their characters are."""
        face, strings, most = self.face(font, glyph_size), self.lines.high, self.characters.high
        for shift in range(-self.offset, self.offset + 1):
            fits = [n for n in range(1, most + 1) if face.starts(self.size, shift, n * face.widest)]
            in_line = max(fits, default=0)
            if strings == 1:
                rows = -(-most // in_line) if in_line else most
                fit = in_line > 0 and len(face.tops(self.size, shift, rows)) > 0
            else:
                fit = in_line == most and len(_apart(face, self.size, shift)) >= strings
            if not fit:
                raise UsageError(
                    f"--size {self.size}: no room for {strings} x {most} characters of {font.name} "
                    f"at {glyph_size} px with --spacing {self.spacing}, shifted by {shift} px; "
                    f"{in_line} fit in a line: choose a larger --size, a smaller --glyph-size or "
                    "--offset, or fewer --characters or --lines"
                )

    @property
    def provenance(self) -> dict[str, Any]:
        """The options as JSON values."""
        return {
            "size": self.size,
            "images": self.images,
            "lines": str(self.lines),
            "characters": str(self.characters),
            "alphabets": list(self.alphabets),
            "fonts": [font.identity for font in self.fonts],
            "glyph_size": str(self.glyph_size),
            "offset": self.offset,
            "spacing": self.spacing,
            "place": self.place,
            "words": self.words,
        }


class GlyphsSource(DrawnSource[GlyphOptions]):
    """Square images of one string each."""

    name = "glyphs"
    version = VERSION

    def make(self, row: int) -> Sample:
        """See `make_sample`."""
        return make_sample(self.options, self.seed, row)


def make_sample(options: GlyphOptions, seed: int, row: int) -> Sample:
    """Images with a turn each, the strings as answers; `meta` says how each is drawn."""
    pick = random.Random(f"glyphs-{VERSION}-{seed}-{row}")
    messages: list[Message] = []
    images, drawn = [], []
    for _ in range(options.images):
        font = pick.choice(options.fonts)
        glyph_size = pick.choice(options.glyph_size.values)
        shift = [pick.randint(-options.offset, options.offset) for _ in "xy"]
        strings = [make_string(options, pick) for _ in range(pick.choice(options.lines.values))]
        canvas, moved = paint(strings, options.face(font, glyph_size), options, shift, pick)
        images.append(to_png(Image.fromarray(canvas)))
        drawn.append({"font": font.name, "glyph_size": glyph_size, "offset": moved})
        messages.append({"role": "user", "content": [IMAGE_PART, text_part(QUESTION)]})
        messages.append({"role": "assistant", "content": [text_part("\n".join(strings))]})
    meta = {"kinds": ["glyphs"] * len(images), "words": options.words, "images": drawn}
    return Sample(messages, images, source="glyphs", meta=meta)


def make_string(options: GlyphOptions, pick: random.Random) -> str:
    """A string of one of the alphabets."""
    alphabet = pick.choice(options.alphabets)
    length = pick.choice(options.characters.values)
    return draw(lambda: random_string(pick, alphabet, length), options.words)


def paint(
    strings: list[str],
    face: Face,
    options: GlyphOptions,
    shift: Sequence[int],
    pick: random.Random,
) -> tuple[Grey, list[int]]:
    """The strings on a square, in lines of the grid shifted by (x, y) px; and the shift, which may
    be 1 px less, lest ink be cut off."""
    place = _place_one if len(strings) == 1 else _place_several
    lines = list(place(strings, face, options, shift, pick))
    dx, dy = face.inside(lines, options.size)
    canvas = np.full((options.size, options.size), PAPER, np.uint8)
    for line, x, y in lines:
        face.stamp(canvas, line, x + dx, y + dy)
    return canvas, [shift[0] + dx, shift[1] + dy]


def _place_one(
    strings: list[str],
    face: Face,
    options: GlyphOptions,
    shift: Sequence[int],
    pick: random.Random,
) -> Iterator[tuple[str, int, int]]:
    """One string, in as many lines as it takes: each line, its start and its top, px."""
    lines = [""]
    for character in strings[0]:
        if not face.starts(options.size, shift[0], face.width(lines[-1] + character)):
            lines.append("")
        lines[-1] += character
    starts = face.starts(options.size, shift[0], max(map(face.width, lines)))
    x = starts[0] if options.place == LEFT else pick.choice(starts)
    y = pick.choice(face.tops(options.size, shift[1], len(lines)))
    for number, line in enumerate(lines):
        yield line, x, y + number * face.line_height


def _place_several(
    strings: list[str],
    face: Face,
    options: GlyphOptions,
    shift: Sequence[int],
    pick: random.Random,
) -> Iterator[tuple[str, int, int]]:
    """Strings from top to bottom, each in a line and with a start of its own."""
    tops = face.tops(options.size, shift[1], 1)
    gap = -(-face.line_height // tops.step)
    spare = len(tops) - (len(strings) - 1) * (gap - 1)
    for number, at in enumerate(sorted(pick.sample(range(spare), len(strings)))):
        starts = face.starts(options.size, shift[0], face.width(strings[number]))
        x = starts[0] if options.place == LEFT else pick.choice(starts)
        yield strings[number], x, tops[at + number * (gap - 1)]


def _apart(face: Face, size: int, shift: int) -> range:
    """The most tops of lines that do not overlap."""
    tops = face.tops(size, shift, 1)
    return tops[:: -(-face.line_height // tops.step)]
