"""Draws a rebuilt batch as one picture: rows as bars, images as the model sees them, and texts.

A contact sheet gives an overview and can be mailed; the page (`ocrtrain.inspection.pages.batch`)
has the details. Characters that Pillow's built-in font lacks are drawn as boxes.
"""

from __future__ import annotations

import textwrap
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from ocrtrain.inspection.limits import Limits
from ocrtrain.inspection.rebuild import RebuiltBatch, RebuiltSample
from ocrtrain.inspection.report import excerpts, left_out, name_of, summary
from ocrtrain.inspection.token_spans import position_spans
from ocrtrain.model.pixels import encoder_view

WIDTH = 1280
MARGIN = 24
THUMB = 236
"""px a side; five of them and the gaps between them fill the width."""
GAP = 13
COLUMNS = (WIDTH - 2 * MARGIN + GAP) // (THUMB + GAP)
CAPTION = 68
"""px under a picture, enough for four lines of text."""
LINE, BAR = 20, 15
BARS = 64
"""The most rows drawn as bars, whatever the limits, to keep the picture small."""

INK, SOFT, PAPER, CARD = "#1c2128", "#667080", "#f5f6f8", "#ffffff"
EMPTY, MASKED, ANSWER = "#e6e9ed", "#d9534f", "#14713f"
KINDS = {"image": "#7aa5d8", "context": "#c9d1db", "supervised": "#45a36b"}
LEGEND = {"image": "image", "context": "not supervised", "supervised": "supervised"}


class Tile(NamedTuple):
    """One tile of the sheet: an image of a sample, by its number in the sample (`number`) and in
    the batch (`image`), or the sample's text (both -1)."""

    sample: RebuiltSample
    number: int
    image: int


def tiles(rebuilt: RebuiltBatch, limits: Limits) -> list[Tile]:
    """The tiles within the limits: all images, and the text of each sample that has none."""
    found, at, images = [], 0, 0
    for sample in rebuilt.samples[: limits.samples]:
        for number in range(sample.segment.images):
            if images < limits.images:
                found.append(Tile(sample, number, at + number))
                images += 1
        if not sample.segment.images:
            found.append(Tile(sample, -1, -1))
        at += sample.segment.images
    return found


def tile_place(number: int, top: int) -> tuple[int, int]:
    """Left and top edge in px of the n-th tile, if the first line of tiles is at `top`."""
    line, column = divmod(number, COLUMNS)
    return MARGIN + column * (THUMB + GAP), top + line * (THUMB + CAPTION + GAP)


def tiles_top(rebuilt: RebuiltBatch, limits: Limits) -> int:
    """The top edge of the first line of tiles, in px."""
    return _bars_top(rebuilt, limits) + _bar_count(rebuilt, limits) * (BAR + 4) + MARGIN


def sheet(rebuilt: RebuiltBatch, limits: Limits) -> Image.Image:
    """Draws the sheet: RGB, 1,280 px wide and as high as needed."""
    pieces, top = tiles(rebuilt, limits), tiles_top(rebuilt, limits)
    lines = -(-len(pieces) // COLUMNS)
    height = top + lines * (THUMB + CAPTION + GAP) + MARGIN
    canvas = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(_header(rebuilt, limits)):
        place = (MARGIN, MARGIN + number * LINE)
        alarm = number == 1 and rebuilt.problem is not None
        colour = MASKED if alarm else INK if number < 2 else SOFT
        draw.text(place, line, colour, font=_font(15))
    _bars(rebuilt, draw, limits)
    for number, tile in enumerate(pieces):
        canvas.paste(_tile(rebuilt, tile), tile_place(number, top))
    return canvas


def thumbnail(image: Image.Image) -> Image.Image:
    """A square image, scaled to the size of a tile."""
    return image.resize((THUMB, THUMB), Image.Resampling.LANCZOS)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _header(rebuilt: RebuiltBatch, limits: Limits) -> list[str]:
    """The lines at the top: the summary, and what is not shown."""
    images = sum(tile.number >= 0 for tile in tiles(rebuilt, limits))
    samples = min(len(rebuilt.samples), limits.samples)
    missing = [
        left_out(len(rebuilt.batch.rows), _bar_count(rebuilt, limits), "row", "--rows"),
        left_out(len(rebuilt.samples), samples, "sample", "--samples"),
        left_out(len(rebuilt.batch.images), images, "image", "--images"),
    ]
    lines = [*summary(rebuilt), "; ".join(text for text in missing if text)]
    return [part for line in lines for part in textwrap.wrap(line, 150)]


def _bar_count(rebuilt: RebuiltBatch, limits: Limits) -> int:
    return min(len(rebuilt.batch.rows), limits.rows, BARS)


def _bars_top(rebuilt: RebuiltBatch, limits: Limits) -> int:
    """The top edge of the first bar, in px: below the header and the legend."""
    return MARGIN + LINE * len(_header(rebuilt, limits)) + 2 * LINE + 8


def _bars(rebuilt: RebuiltBatch, draw: ImageDraw.ImageDraw, limits: Limits) -> None:
    """Draws the legend and a bar for each row, coloured by what its positions are."""
    left, right, top = MARGIN + 70, WIDTH - MARGIN, _bars_top(rebuilt, limits)
    at = left
    for kind, name in (*LEGEND.items(), ("", "padding")):
        draw.rectangle((at, top - 22, at + 14, top - 12), KINDS.get(kind, EMPTY))
        draw.text((at + 20, top - 25), name, SOFT, font=_font(13))
        at += 110
    scale = (right - left) / rebuilt.batch.input_ids.shape[1]
    for number, row in enumerate(rebuilt.batch.rows[: _bar_count(rebuilt, limits)]):
        at = top + number * (BAR + 4)
        draw.text((MARGIN, at - 1), f"row {rebuilt.rows.start + number}", SOFT, font=_font(13))
        draw.rectangle((left, at, right, at + BAR), EMPTY)
        for segment in row.segments:
            for span in position_spans(rebuilt.batch, number, segment, rebuilt.tokenizer):
                box = (left + span.start * scale, at, left + span.stop * scale, at + BAR)
                draw.rectangle(box, MASKED if segment.skipped else KINDS[span.kind])
            edge = left + (segment.start + segment.length) * scale
            draw.line((edge, at, edge, at + BAR), CARD)


def _tile(rebuilt: RebuiltBatch, tile: Tile) -> Image.Image:
    """Draws an image or a text with its caption, clipped to the tile's width."""
    canvas = Image.new("RGB", (THUMB, THUMB + CAPTION), PAPER)
    draw, sample = ImageDraw.Draw(canvas), tile.sample
    lines = [(f"row {sample.row}  {name_of(sample)}", INK)]
    if tile.number < 0:
        _text(rebuilt, sample, draw)
    else:
        pixels = encoder_view(
            rebuilt.batch.images[tile.image], rebuilt.batch.layouts[tile.image].size
        ).numpy()
        canvas.paste(thumbnail(Image.fromarray(pixels)))
        width, height = sample.sizes[tile.number]
        lines.append((f"{width:,} x {height:,} px", SOFT))
        answer = textwrap.wrap(_drawable(excerpts(rebuilt, sample)[1]), 36, max_lines=2)
        lines += [(text, ANSWER) for text in answer]
    for number, (text, ink) in enumerate(lines):
        draw.text((0, THUMB + 4 + 16 * number), text, ink, font=_font(12))
    return canvas


def _text(rebuilt: RebuiltBatch, sample: RebuiltSample, draw: ImageDraw.ImageDraw) -> None:
    """Draws a card with a sample's first question and answer, or why it was skipped."""
    draw.rectangle((0, 0, THUMB - 1, THUMB - 1), CARD, outline=KINDS["context"])
    question, answer, ink = *excerpts(rebuilt, sample, 300), ANSWER
    if sample.segment.skipped:
        question, answer, ink = "", f"skipped: {sample.segment.skipped}", MASKED
    at = 8
    for text, colour, lines in ((question, INK, 7), (answer, ink, 6)):
        for line in textwrap.wrap(_drawable(text), 33, max_lines=lines, placeholder=" ..."):
            draw.text((9, at), line, colour, font=_font(12))
            at += 16


def _drawable(text: str) -> str:
    """Replaces the symbols of `token_spans.visible` that the font lacks."""
    return text.translate({0x21B5: " / ", 0x21E5: " ", 0x27E8: "<", 0x27E9: ">"})
