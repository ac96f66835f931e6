"""A rebuilt batch as one picture: its rows as bars, its images as the model saw them, its texts.

Owner of the contact sheet. It is for a glance and for mail; the page
(`ocrtrain.inspection.pages.batch`) has all of it. Letters that Pillow's own font lacks show as
boxes.
"""

from __future__ import annotations

import textwrap
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from ocrtrain.inspection.rebuild import RebuiltBatch, RebuiltSample
from ocrtrain.inspection.report import Limits, excerpts, left_out, name_of, summary
from ocrtrain.inspection.token_spans import position_spans
from ocrtrain.model.pixels import seen

WIDTH = 1280
MARGIN = 24
THUMB = 236
"""px a side; five of them and their gaps fill the width."""
GAP = 13
COLUMNS = (WIDTH - 2 * MARGIN + GAP) // (THUMB + GAP)
CAPTION = 68
"""px under a picture: four lines."""
LINE, BAR = 20, 15
BARS = 64
"""Rows that have a bar at most: a sheet is one picture."""

INK, SOFT, PAPER, CARD = "#1c2128", "#667080", "#f5f6f8", "#ffffff"
EMPTY, HOLE, ANSWER = "#e6e9ed", "#d9534f", "#14713f"
KINDS = {"image": "#7aa5d8", "context": "#c9d1db", "supervised": "#45a36b"}
LEGEND = {"image": "image", "context": "read only", "supervised": "supervised"}


class Tile(NamedTuple):
    """A picture's place on the sheet: an image of a sample by its numbers in the sample and in the
    batch, or (-1, -1) the sample's text."""

    sample: RebuiltSample
    number: int
    image: int


def tiles(shown: RebuiltBatch, limits: Limits) -> list[Tile]:
    """What the sheet shows: every image, and the text of samples without one, as far as the limits
    allow."""
    found, at, images = [], 0, 0
    for sample in shown.samples[: limits.samples]:
        for number in range(sample.segment.images):
            if images < limits.images:
                found.append(Tile(sample, number, at + number))
                images += 1
        if not sample.segment.images:
            found.append(Tile(sample, -1, -1))
        at += sample.segment.images
    return found


def tile_place(number: int, top: int) -> tuple[int, int]:
    """Left and upper edge in px of the n-th tile where the first line of tiles begins at `top`."""
    line, column = divmod(number, COLUMNS)
    return MARGIN + column * (THUMB + GAP), top + line * (THUMB + CAPTION + GAP)


def tiles_top(shown: RebuiltBatch, limits: Limits) -> int:
    """Where the tiles begin, in px from above."""
    return _bars_top(shown, limits) + _bars_shown(shown, limits) * (BAR + 4) + MARGIN


def sheet(shown: RebuiltBatch, limits: Limits) -> Image.Image:
    """The sheet, RGB, 1,280 px wide and as high as it must be."""
    pieces, top = tiles(shown, limits), tiles_top(shown, limits)
    lines = -(-len(pieces) // COLUMNS)
    height = top + lines * (THUMB + CAPTION + GAP) + MARGIN
    canvas = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(_words(shown, limits)):
        place = (MARGIN, MARGIN + number * LINE)
        alarm = number == 1 and shown.problem is not None
        colour = HOLE if alarm else INK if number < 2 else SOFT
        draw.text(place, line, colour, font=_font(15))
    _bars(shown, draw, limits)
    for number, tile in enumerate(pieces):
        canvas.paste(_tile(shown, tile), tile_place(number, top))
    return canvas


def thumbnail(image: Image.Image) -> Image.Image:
    """A square image at the size of a tile."""
    return image.resize((THUMB, THUMB), Image.Resampling.LANCZOS)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _words(shown: RebuiltBatch, limits: Limits) -> list[str]:
    """The lines above everything: the summary, and what is left out."""
    images = sum(tile.number >= 0 for tile in tiles(shown, limits))
    samples = min(len(shown.samples), limits.samples)
    missing = [
        left_out(len(shown.batch.rows), _bars_shown(shown, limits), "row", "--rows"),
        left_out(len(shown.samples), samples, "sample", "--samples"),
        left_out(len(shown.batch.images), images, "image", "--images"),
    ]
    lines = [*summary(shown), "; ".join(text for text in missing if text)]
    return [part for line in lines for part in textwrap.wrap(line, 150)]


def _bars_shown(shown: RebuiltBatch, limits: Limits) -> int:
    return min(len(shown.batch.rows), limits.rows, BARS)


def _bars_top(shown: RebuiltBatch, limits: Limits) -> int:
    """Where the bars begin: under the words and a legend."""
    return MARGIN + LINE * len(_words(shown, limits)) + 2 * LINE + 8


def _bars(shown: RebuiltBatch, draw: ImageDraw.ImageDraw, limits: Limits) -> None:
    """A bar for each row: its share of the batch's positions, and what they are."""
    left, right, top = MARGIN + 70, WIDTH - MARGIN, _bars_top(shown, limits)
    at = left
    for kind, name in (*LEGEND.items(), ("", "padding")):
        draw.rectangle((at, top - 22, at + 14, top - 12), KINDS.get(kind, EMPTY))
        draw.text((at + 20, top - 25), name, SOFT, font=_font(13))
        at += 110
    scale = (right - left) / shown.batch.input_ids.shape[1]
    for number, row in enumerate(shown.batch.rows[: _bars_shown(shown, limits)]):
        at = top + number * (BAR + 4)
        draw.text((MARGIN, at - 1), f"row {shown.rows.start + number}", SOFT, font=_font(13))
        draw.rectangle((left, at, right, at + BAR), EMPTY)
        for segment in row.segments:
            for run in position_spans(shown.batch, number, segment, shown.tokenizer):
                box = (left + run.start * scale, at, left + run.stop * scale, at + BAR)
                draw.rectangle(box, HOLE if segment.skipped else KINDS[run.kind])
            edge = left + (segment.start + segment.length) * scale
            draw.line((edge, at, edge, at + BAR), CARD)


def _tile(shown: RebuiltBatch, tile: Tile) -> Image.Image:
    """An image or a text with its caption. What is too wide is cut off at the edge."""
    canvas = Image.new("RGB", (THUMB, THUMB + CAPTION), PAPER)
    draw, sample = ImageDraw.Draw(canvas), tile.sample
    lines = [(f"row {sample.row}  {name_of(sample)}", INK)]
    if tile.number < 0:
        _text(shown, sample, draw)
    else:
        pixels = seen(shown.batch.images[tile.image], shown.batch.image_size).numpy()
        canvas.paste(thumbnail(Image.fromarray(pixels)))
        width, height = sample.sizes[tile.number]
        lines.append((f"{width:,} x {height:,} px", SOFT))
        answer = textwrap.wrap(_drawable(excerpts(shown, sample)[1]), 36, max_lines=2)
        lines += [(text, ANSWER) for text in answer]
    for number, (text, ink) in enumerate(lines):
        draw.text((0, THUMB + 4 + 16 * number), text, ink, font=_font(12))
    return canvas


def _text(shown: RebuiltBatch, sample: RebuiltSample, draw: ImageDraw.ImageDraw) -> None:
    """The first question and answer of a sample, on a card; why it was skipped, where it was."""
    draw.rectangle((0, 0, THUMB - 1, THUMB - 1), CARD, outline=KINDS["context"])
    asked, answered, ink = *excerpts(shown, sample, 300), ANSWER
    if sample.segment.skipped:
        asked, answered, ink = "", f"skipped: {sample.segment.skipped}", HOLE
    at = 8
    for text, colour, lines in ((asked, INK, 7), (answered, ink, 6)):
        for line in textwrap.wrap(_drawable(text), 33, max_lines=lines, placeholder=" ..."):
            draw.text((9, at), line, colour, font=_font(12))
            at += 16


def _drawable(text: str) -> str:
    """A text without the signs of `readable.visible` that the font lacks."""
    return text.translate({0x21B5: " / ", 0x21E5: " ", 0x27E8: "<", 0x27E9: ">"})
