"""Random words and how they are set in lines: what `lines` and `pages` share.

Words are pronounceable ones and numbers, some with capitals, or random strings of an alphabet;
`words.py` says which may be drawn. They are spaced by the font's own widths, without kerning.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ocrdata.errors import UsageError
from ocrdata.sources.faces import NATURAL, PAPER, Face, Grey, face_of
from ocrdata.sources.fonts import BUILT_IN, FontFile, check_characters
from ocrdata.sources.spans import Span
from ocrdata.sources.words import TRAIN, check_enough, draw, pronounceable, random_string

ALPHABET = string.ascii_letters + string.digits
QUESTION = "Read."

WORDS, STRINGS = "words", "strings"
TEXTS = (WORDS, STRINGS)

MAX_SIDE = 8_192  # px

_NUMBER, _UPPER, _CAPITAL = 0.1, 0.15, 0.35
"""Up to which of the numbers from 0 to 1 a word is of digits, in capitals, or has one."""

_DIGITS = 4
"""Digits of the longest number."""


@dataclass(frozen=True)
class TextOptions:
    """What is written, and how large: sides of the image and size of the font (em) in px,
    characters of a word.

    Raises UsageError where a word does not fit a line, or where there are none.
    """

    width: int
    height: int
    fonts: tuple[FontFile, ...] = (FontFile(BUILT_IN),)
    glyph_size: Span = Span(16, 16)
    text: str = WORDS
    alphabet: str = ALPHABET
    characters: Span = Span(3, 9)
    words: str = TRAIN

    def __post_init__(self) -> None:
        for flag, side in (("width", self.width), ("height", self.height)):
            if not 1 <= side <= MAX_SIDE:
                raise UsageError(f"--{flag} {side}: out of range 1 to {MAX_SIDE} px")
        check_characters(self.fonts, self.visible)
        letters = self.alphabet if self.text == STRINGS else string.ascii_lowercase
        check_enough(letters, self.characters.values, self.words)

    @property
    def visible(self) -> str:
        """Every character that may be drawn."""
        return self.alphabet if self.text == STRINGS else ALPHABET + self._stop

    @property
    def _stop(self) -> str:
        return "" if self.text == STRINGS else "."

    @property
    def provenance(self) -> dict[str, Any]:
        """The options as JSON values."""
        return {
            "width": self.width,
            "height": self.height,
            "fonts": [font.identity for font in self.fonts],
            "glyph_size": str(self.glyph_size),
            "text": self.text,
            **({"alphabet": self.alphabet} if self.text == STRINGS else {}),
            "characters": str(self.characters),
            "words": self.words,
        }

    def face(self, font: FontFile, size: int) -> Face:
        """The characters of these texts, and the space between words."""
        return face_of(font, size, self.visible + " ", NATURAL)

    def check_width(self, font: FontFile, size: int, width: int) -> None:
        """Check that the longest word fits a line of `width` px, whatever its characters. Raises
        UsageError."""
        face, most = self.face(font, size), self.characters.high
        needed = face.before + most * face.widest + face.width(self._stop) + face.after
        if needed > width:
            raise UsageError(
                f"--width {self.width}: a word of {most} characters of {font.name} at {size} px "
                f"may take {needed} px, and a line has {width}; choose a larger --width, a smaller "
                "--glyph-size, or fewer --characters"
            )

    def canvas(self) -> Grey:
        """White paper."""
        return np.full((self.height, self.width), PAPER, np.uint8)

    def word(self, pick: random.Random) -> str:
        """A word of this side."""
        length = pick.choice(self.characters.values)
        if self.text == STRINGS:
            return draw(lambda: random_string(pick, self.alphabet, length), self.words)
        kind = pick.random()
        if kind < _NUMBER:
            length = min(length, _DIGITS)
            return draw(lambda: random_string(pick, string.digits, length), self.words)
        word = draw(lambda: pronounceable(pick, length), self.words)
        if kind < _UPPER:
            return word.upper()
        return word.capitalize() if kind < _CAPITAL else word


def stamp_lines(canvas: Grey, face: Face, lines: Sequence[str], x: int, y: int) -> None:
    """Draw lines below each other, the first with its start and the top of its ink at (x, y)."""
    for number, line in enumerate(lines):
        face.stamp(canvas, line, x, y + number * face.line_height)
