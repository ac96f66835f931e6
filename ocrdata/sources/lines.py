"""One or a few lines of random words on white, anywhere on the image.

Row i is a function of (seed, i), the options, the font files and `fonts.versions`. The answer is
the text, with a newline between lines.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ocrdata.errors import UsageError
from ocrdata.sample import Sample, from_turns
from ocrdata.sources.faces import Face
from ocrdata.sources.fonts import FontFile
from ocrdata.sources.spans import Span
from ocrdata.sources.synthetic import DrawnSource, to_png
from ocrdata.sources.typesetting import QUESTION, TextOptions, stamp_lines

VERSION = 1  # increase it with every change of a row


@dataclass(frozen=True)
class LinesOptions(TextOptions):
    """Also how many lines. Raises UsageError where they do not fit the image."""

    width: int = 256
    height: int = 64
    lines: Span = Span(1, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for font in self.fonts:
            for size in self.glyph_size.values:
                self.check_width(font, size, self.width)
                self._check_height(font, size)

    def _check_height(self, font: FontFile, size: int) -> None:
        face = self.face(font, size)
        needed = face.ink_height + (self.lines.high - 1) * face.line_height
        if needed > self.height:
            raise UsageError(
                f"--height {self.height}: {self.lines.high} lines of {font.name} at {size} px take "
                f"{needed} px; choose a larger --height, a smaller --glyph-size, or fewer --lines"
            )

    @property
    def provenance(self) -> dict[str, Any]:
        """The options as JSON values."""
        return {**super().provenance, "lines": str(self.lines)}


class LinesSource(DrawnSource[LinesOptions]):
    """Images of a few lines each."""

    name = "lines"
    version = VERSION

    def make(self, row: int) -> Sample:
        """See `make_sample`."""
        return make_sample(self.options, self.seed, row)


def make_sample(options: LinesOptions, seed: int, row: int) -> Sample:
    """Lines as image and answer; `meta` says how they are drawn."""
    pick = random.Random(f"lines-{VERSION}-{seed}-{row}")
    font = pick.choice(options.fonts)
    size = pick.choice(options.glyph_size.values)
    face = options.face(font, size)
    lines = [make_line(options, face, pick) for _ in range(pick.choice(options.lines.values))]
    width, height = max(map(face.width, lines)), (len(lines) - 1) * face.line_height
    x = pick.randint(face.before, options.width - face.after - width)
    y = pick.randint(0, options.height - face.ink_height - height)
    canvas = options.canvas()
    stamp_lines(canvas, face, lines, x, y)
    return from_turns(
        [(QUESTION, "\n".join(lines))],
        [to_png(Image.fromarray(canvas))],
        source="lines",
        meta={
            "kinds": ["lines"],
            "words": options.words,
            "font": font.name,
            "glyph_size": size,
            "lines": len(lines),
            "place": [x, y],
        },
    )


def make_line(options: LinesOptions, face: Face, pick: random.Random) -> str:
    """As many words as fit a part of the width that is drawn, one at least."""
    room = (options.width - face.before - face.after) * pick.uniform(0.2, 1)
    line = options.word(pick)
    while face.width(longer := f"{line} {options.word(pick)}") <= room:
        line = longer
    return line
