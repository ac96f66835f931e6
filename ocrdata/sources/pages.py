"""Pages of headings and paragraphs of random words.

Row i is a function of (seed, i), the options, the font files and `fonts.versions`. The answer is
the whole text from top to bottom: an empty line between headings and paragraphs, and a space where
a line of a paragraph ends.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from ocrdata.errors import UsageError
from ocrdata.sample import Sample, from_turns
from ocrdata.sources.faces import Face
from ocrdata.sources.fonts import FontFile
from ocrdata.sources.synthetic import DrawnSource, to_png
from ocrdata.sources.typesetting import QUESTION, WORDS, TextOptions, stamp_lines

VERSION = 1  # increase it with every change of a row

HEADING_SIZE = 1.5
"""That of a heading's font, in sizes of the text."""

_MARGIN = 1 / 10
"""The widest margin, in sides of the page."""

_LINES, _HEADING_WORDS, _SENTENCE = (1, 6), (1, 4), (3, 9)
"""Lines of a paragraph, words of a heading, words of a sentence: fewest and most."""

_HEADED = 0.4
"""Chance that a paragraph has a heading."""


@dataclass(frozen=True)
class PagesOptions(TextOptions):
    """See `TextOptions`. Raises UsageError where a heading and a line do not fit the page."""

    width: int = 512
    height: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        across, down = self.margins
        for font in self.fonts:
            for size in self.glyph_size.values:
                self.check_width(font, heading_size(size), self.width - 2 * across)
                self._check_height(font, size, self.height - 2 * down)

    def _check_height(self, font: FontFile, size: int, room: int) -> None:
        heading, text = self.face(font, heading_size(size)), self.face(font, size)
        if heading.line_height + text.line_height > room:
            raise UsageError(
                f"--height {self.height}: a heading and a line of {font.name} at {size} px take "
                f"{heading.line_height + text.line_height} px, and there are {room} between the "
                "margins; choose a larger --height or a smaller --glyph-size"
            )

    @property
    def margins(self) -> tuple[int, int]:
        """The widest at the left and right, and at the top and bottom, px."""
        return int(self.width * _MARGIN), int(self.height * _MARGIN)


class PagesSource(DrawnSource[PagesOptions]):
    """Images of a page each."""

    name = "pages"
    version = VERSION

    def make(self, row: int) -> Sample:
        """See `make_sample`."""
        return make_sample(self.options, self.seed, row)


def heading_size(size: int) -> int:
    """Px of the font of a heading above text of `size` px."""
    return round(size * HEADING_SIZE)


def make_sample(options: PagesOptions, seed: int, row: int) -> Sample:
    """A page as image and answer; `meta` says how it is drawn."""
    pick = random.Random(f"pages-{VERSION}-{seed}-{row}")
    font = pick.choice(options.fonts)
    size = pick.choice(options.glyph_size.values)
    left, top = (pick.randint(0, most) for most in options.margins)
    faces = options.face(font, size), options.face(font, heading_size(size))
    blocks = list(make_blocks(options, faces, (left, top), pick))
    canvas = options.canvas()
    for block in blocks:
        stamp_lines(canvas, block.face, block.lines, left + block.face.before, block.top)
    return from_turns(
        [(QUESTION, "\n\n".join(" ".join(block.lines) for block in blocks))],
        [to_png(Image.fromarray(canvas))],
        source="pages",
        meta={
            "kinds": ["pages"],
            "words": options.words,
            "font": font.name,
            "glyph_size": size,
            "margins": [left, top],
            "lines": sum(len(block.lines) for block in blocks),
            "headings": sum(block.is_heading for block in blocks),
        },
    )


class Block(NamedTuple):
    """A heading or a paragraph, with the top of its first line, px."""

    lines: list[str]
    face: Face
    top: int
    is_heading: bool


def make_blocks(
    options: PagesOptions, faces: tuple[Face, Face], margins: tuple[int, int], pick: random.Random
) -> Iterator[Block]:
    """Paragraphs, some with a heading, until the page is full. `faces`: that of the text and that
    of headings; `margins`: left and top, which are right and bottom, too, px."""
    text, heading = faces
    width = options.width - 2 * margins[0]
    y, bottom = margins[1], options.height - margins[1]
    while bottom - y >= text.line_height:
        if bottom - y >= heading.line_height + text.line_height and pick.random() < _HEADED:
            yield Block([make_heading(options, heading, width, pick)], heading, y, is_heading=True)
            y += heading.line_height
        lines = min(pick.randint(*_LINES), (bottom - y) // text.line_height)
        paragraph = make_paragraph(options, text, (width, lines), pick)
        yield Block(paragraph, text, y, is_heading=False)
        y += lines * text.line_height + text.line_height // 2


def make_heading(options: PagesOptions, face: Face, width: int, pick: random.Random) -> str:
    """One line of a few words."""
    line = capital(options.word(pick)) if options.text == WORDS else options.word(pick)
    for _ in range(pick.randint(*_HEADING_WORDS) - 1):
        longer = f"{line} {options.word(pick)}"
        if face.width(longer) > width - face.before - face.after:
            break
        line = longer
    return line


def make_paragraph(
    options: PagesOptions, face: Face, room: tuple[int, int], pick: random.Random
) -> list[str]:
    """Sentences in as many lines as `room` (px, lines) says; the last line may be shorter."""
    width, count = room[0] - face.before - face.after, room[1]
    words = _sentences(options, pick)
    lines: list[str] = []
    line = next(words)
    while len(lines) < count:
        word = next(words)
        if face.width(f"{line} {word}") <= width:
            line = f"{line} {word}"
        else:
            lines.append(line)
            line = word
    last = lines[-1].split(" ")
    return [*lines[:-1], " ".join(last[: pick.randint(1, len(last))])]


def _sentences(options: PagesOptions, pick: random.Random) -> Iterator[str]:
    """Words without end, those of `WORDS` with a capital and a full stop around each sentence."""
    while True:
        sentence = [options.word(pick) for _ in range(pick.randint(*_SENTENCE))]
        if options.text == WORDS:
            sentence[0] = capital(sentence[0])
            sentence[-1] += "."
        yield from sentence


def capital(word: str) -> str:
    """The word with its first letter in upper case."""
    return word[0].upper() + word[1:]
