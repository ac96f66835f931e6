"""Renders a rebuilt batch as one HTML page that needs no network, no script and no other file.

In: a RebuiltBatch and the limits of what to show. Out: the page in pieces. `templates/` holds the
markup and the stylesheet, this module computes the values for them. Samples may contain any text:
the template engine escapes all of it, and the page's content security policy forbids scripts and
requests. Images are embedded as PNG data URIs. The same batch gives the same bytes.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from torch import Tensor

from ocrtrain.data.batch import Batch
from ocrtrain.data.batch_rows import Segment
from ocrtrain.inspection.limits import Limits
from ocrtrain.inspection.rebuild import RebuiltBatch, RebuiltSample
from ocrtrain.inspection.report import (
    COLUMNS,
    NUMBERS,
    cells,
    image_size,
    left_out,
    name_of,
    padding,
    plural,
    repeated,
    truncation,
)
from ocrtrain.inspection.token_spans import (
    IMAGE,
    PositionSpan,
    Span,
    position_spans,
    spans,
    visible,
)
from ocrtrain.model.pixels import encoder_view

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(rebuilt: RebuiltBatch, limits: Limits) -> Iterator[str]:
    """Yields the page in pieces, each image encoded only when its piece is due."""
    batch = rebuilt.batch
    carded = rebuilt.samples[: limits.samples]
    images = min(limits.images, sum(sample.segment.images for sample in carded))

    def base64_png(image: int) -> str:
        return _base64_png(encoder_view(batch.images[image], batch.layouts[image].size))

    return ENVIRONMENT.get_template("batch.html.jinja").generate(
        policy=POLICY,
        limits=limits,
        run=str(rebuilt.request.run),
        title=rebuilt.title,
        verdict=rebuilt.verdict,
        state="bad" if rebuilt.problem else "good" if rebuilt.recorded else "open",
        problem=str(rebuilt.problem) if rebuilt.problem else "",
        tiles=_tiles(batch),
        legend=_legend(batch),
        width=batch.input_ids.shape[1],
        bars=_bars(rebuilt, limits),
        rows_note=left_out(len(batch.rows), limits.rows, "row", "--rows"),
        columns=_columns(),
        table=[s for s in rebuilt.samples if s.row < rebuilt.rows.start + limits.rows],
        cells=cells,
        cards=_cards(rebuilt, limits),
        layouts=batch.layouts,
        base64_png=base64_png,
        tip=_tip,
        images_note=left_out(len(batch.images), images, "image", "--images"),
        samples_note=left_out(len(rebuilt.samples), len(carded), "sample", "--samples"),
    )


def _tiles(batch: Batch) -> list[tuple[str, str]]:
    """The numbers at the top of the page, each with its label."""
    tiles = [
        (f"{len(batch.rows):,}", "rows"),
        (f"{len(batch.segments):,}", "samples"),
        (f"{len(batch.images):,}", _images(batch)),
        (f"{batch.tokens:,}", "tokens"),
        (f"{batch.supervised:,}", f"supervised, {batch.supervised / batch.tokens:.1%}"),
        (f"{padding(batch):.1%}", f"padding of {batch.input_ids.numel():,} positions"),
    ]
    if batch.truncated_tokens:
        turns = f", {plural(batch.truncated_turns, 'whole turn')}" if batch.truncated_turns else ""
        tiles.append((f"{batch.truncated_tokens:,}", f"tokens truncated{turns}"))
    if batch.skipped:
        tiles.append((f"{len(batch.skipped):,}", "samples skipped"))
    if repeated(batch):
        tiles.append((f"{repeated(batch):,}", "samples repeated"))
    return tiles


def _images(batch: Batch) -> str:
    """'images, 64 and 256 px'."""
    sizes = " and ".join(str(size) for size in sorted({one.size for one in batch.layouts}))
    return f"images, {sizes} px" if sizes else "images"


def _legend(batch: Batch) -> dict[str, str]:
    """The kinds of positions in a bar (classes in the stylesheet) and their labels."""
    masked = {"masked": "skipped"} if batch.skipped else {}
    return {"image": "image", "context": "not supervised", "supervised": "supervised", **masked,
            "padding": "padding"}  # fmt: skip


class Bar(NamedTuple):
    """A row as a bar: its number in the global batch, its padding in positions, its segments."""

    number: int
    source: str
    padding: int
    segments: Iterator[tuple[Segment, Iterator[PositionSpan]]]


def _bars(rebuilt: RebuiltBatch, limits: Limits) -> Iterator[Bar]:
    batch = rebuilt.batch
    for number, row in enumerate(batch.rows[: limits.rows]):
        segments = (
            (segment, position_spans(batch, number, segment, rebuilt.tokenizer))
            for segment in row.segments
        )
        yield Bar(
            rebuilt.rows.start + number, row.source, batch.input_ids.shape[1] - row.length, segments
        )


class Column(NamedTuple):
    """A column of the table of samples and the class of its cells in the stylesheet."""

    name: str
    css: str


def _columns() -> list[Column]:
    return [
        Column(name, "number" if at < NUMBERS else "code" if name == "digest" else "word")
        for at, name in enumerate(COLUMNS)
    ]


class Card(NamedTuple):
    """What the page shows of one sample.

    `captions` has each image to show, by its number in the batch; `tokens` are grouped by whether
    they are supervised.
    """

    sample: RebuiltSample
    name: str
    facts: list[str]
    captions: list[tuple[int, str]]
    images_note: str
    tokens: Iterator[tuple[bool, Iterator[Span]]]
    tokens_note: str


def _cards(rebuilt: RebuiltBatch, limits: Limits) -> Iterator[Card]:
    first, left = 0, limits.images
    for sample in rebuilt.samples[: limits.samples]:
        part = sample.segment
        count = min(part.images, left)
        every = spans(rebuilt.batch, sample.row - rebuilt.rows.start, part, rebuilt.tokenizer)
        tokens = list(islice(every, limits.tokens))
        ids = sum(len(token.ids) for token in tokens)
        yield Card(
            sample=sample,
            name=name_of(sample),
            facts=_facts(sample),
            captions=[
                (
                    first + number,
                    f"{name_of(sample)} · "
                    f"{image_size(sample, number, rebuilt.batch.layouts[first + number])}",
                )
                for number in range(count)
            ],
            images_note=left_out(part.images, count, "image", "--images"),
            tokens=groupby(tokens, key=lambda token: token.supervised),
            tokens_note=left_out(part.length, ids, "id", "--tokens"),
        )
        first, left = first + part.images, left - count


def _facts(sample: RebuiltSample) -> list[str]:
    part = sample.segment
    facts = [part.source, f"position {part.ref.position:,}", f"epoch {sample.epoch}",
             f"{part.length:,} ids"]  # fmt: skip
    return [*facts, f"{truncation(part)} truncated"] if part.truncated_tokens else facts


def _tip(token: Span, segment: Segment) -> str:
    """A token's tooltip: its id, its position in the sample and, where different, in the row."""
    ids = " ".join(map(str, token.ids[:4])) if token.kind != IMAGE else str(token.ids[0])
    last = token.start + len(token.ids) - 1
    position = f"position {token.start}" + (f" to {last}" if len(token.ids) > 1 else "")
    in_row = f", {segment.start + token.start} in the row" if segment.start else ""
    return f"id {ids}, {position}{in_row}"


_ODD = re.compile(r"(\n| {2,}| (?=\n|$))")
"""Line ends, and spaces other than a single one before a word."""


def text_parts(text: str) -> Sequence[tuple[str, bool]]:
    """A token's text in parts, each with whether it is a line end or odd spaces, which the page
    marks."""
    return [(part, at % 2 == 1) for at, part in enumerate(_ODD.split(text)) if part]


def _base64_png(pixels: Tensor) -> str:
    """A uint8 [H, W, 3] image as PNG, in base64."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _percent_of(part: int, whole: int) -> str:
    return f"{100 * part / whole:.4g}%"


def _thousands(number: int) -> str:
    return f"{number:,}"


ENVIRONMENT = Environment(
    loader=PackageLoader("ocrtrain.inspection.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {
    "visible": visible,
    "text_parts": text_parts,
    "percent_of": _percent_of,
    "thousands": _thousands,
}
