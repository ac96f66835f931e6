"""A rebuilt batch as one HTML page that needs nothing else: no network, no script, no other file.

Owner of the page. Every text in it comes from data sets and is escaped; the page's own policy
forbids scripts and requests besides. Images are PNGs in data URIs. The same batch gives the same
page, byte for byte.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterator

from PIL import Image
from torch import Tensor

from ocrtrain.data.batch import Row
from ocrtrain.inspection.pages.style import STYLE
from ocrtrain.inspection.rebuild import RebuiltBatch, RebuiltSample
from ocrtrain.inspection.report import (
    COLUMNS,
    NUMBERS,
    Limits,
    cells,
    cut,
    image_size,
    left_out,
    many,
    name_of,
    padding,
    repeated,
)
from ocrtrain.inspection.token_spans import (
    IMAGE,
    SPECIAL,
    PositionSpan,
    Span,
    position_spans,
    spans,
    visible,
)
from ocrtrain.model.pixels import seen

BESIDE = 2
"""Images of a sample that have room beside its text."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(shown: RebuiltBatch, limits: Limits) -> Iterator[str]:
    """The page, piece by piece: with many images it is large."""
    title = escape(f"{shown.asked.run}, {shown.title}")
    yield (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body>\n"
    )
    yield _header(shown)
    yield from _rows(shown, limits)
    yield from _table(shown, limits)
    yield from _cards(shown, limits)
    yield "</body></html>\n"


def escape(text: str) -> str:
    """A text as HTML, in elements and in quoted attributes, with every character visible."""
    return html.escape(visible(text), quote=True)


def _header(shown: RebuiltBatch) -> str:
    batch = shown.batch
    state = "bad" if shown.problem is not None else "good" if shown.recorded else "open"
    tiles = [
        (f"{len(batch.rows):,}", "rows"),
        (f"{len(batch.segments):,}", "samples"),
        (f"{len(batch.images):,}", f"images, {batch.image_size} px"),
        (f"{batch.tokens:,}", "tokens"),
        (f"{batch.supervised:,}", f"supervised, {batch.supervised / batch.tokens:.1%}"),
        (f"{padding(batch):.1%}", f"padding of {batch.input_ids.numel():,} positions"),
    ]
    if batch.truncated_tokens:
        turns = f", {many(batch.truncated_turns, 'whole turn')}" if batch.truncated_turns else ""
        tiles.append((f"{batch.truncated_tokens:,}", f"tokens cut{turns}"))
    if batch.skipped:
        tiles.append((f"{len(batch.skipped):,}", "samples skipped"))
    if repeated(batch):
        tiles.append((f"{repeated(batch):,}", "samples too many: there more than once"))
    numbers = "".join(
        f"<div><b>{value}</b><span>{escape(what)}</span></div>" for value, what in tiles
    )
    problem = f'<p class="problem">{escape(str(shown.problem))}</p>' if shown.problem else ""
    return (
        f"<header><h1>{escape(shown.title.capitalize())}</h1>"
        f'<p class="run">{escape(str(shown.asked.run))}</p>'
        f'<p class="verdict {state}">{escape(shown.verdict)}</p>{problem}'
        f'<div class="tiles">{numbers}</div></header>\n'
    )


def _rows(shown: RebuiltBatch, limits: Limits) -> Iterator[str]:
    """A bar for each row: what its positions are, where samples begin, and the padding."""
    batch = shown.batch
    width = batch.input_ids.shape[1]
    kinds = {"image": "image", "context": "read only", "supervised": "supervised",
             **({"hole": "skipped"} if batch.skipped else {}), "padding": "padding"}  # fmt: skip
    legend = "".join(f'<span><i class="{kind}"></i>{what}</span>' for kind, what in kinds.items())
    yield f'<section><h2>Rows</h2><p class="legend">{legend}</p>\n<div class="bars">\n'
    rows = batch.rows[: limits.rows]
    for number, row in enumerate(rows):
        name = f"row {shown.rows.start + number} <em>{escape(row.source)}</em>"
        yield (
            f'<div class="label">{name}</div>'
            f'<div class="bar">{_bar(shown, number, row, width)}</div>'
            f'<div class="fill">{row.length:,} of {width:,}</div>\n'
        )
    yield "</div>"
    yield _note(left_out(len(batch.rows), len(rows), "row", "--rows"))
    yield "</section>\n"


def _bar(shown: RebuiltBatch, number: int, row: Row, width: int) -> str:
    found = []
    for segment in row.segments:
        name = f"{segment.ref.shard}:{segment.ref.key}"
        spans_of = position_spans(shown.batch, number, segment, shown.tokenizer)
        parts = [_part(span, segment.start, segment.length) for span in spans_of]
        hole = " hole" if segment.skipped else ""
        what = "skipped" if segment.skipped else f"{segment.length:,} ids from {segment.start:,} on"
        found.append(
            f'<div class="segment{hole}" style="width:{_percent(segment.length, width)}" '
            f'title="{escape(name)}: {what}">{"".join(parts)}</div>'
        )
    if row.length < width:
        rest = width - row.length
        found.append(
            f'<div class="padding" style="width:{_percent(rest, width)}" '
            f'title="padding: {rest:,} positions"></div>'
        )
    return "".join(found)


def _part(run: PositionSpan, start: int, length: int) -> str:
    """A stretch of a segment, as a share of it."""
    left, width = _percent(run.start - start, length), _percent(run.stop - run.start, length)
    return f'<i class="{run.kind}" style="left:{left};width:{width}"></i>'


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.4g}%"


def _table(shown: RebuiltBatch, limits: Limits) -> Iterator[str]:
    """A line for each sample of the rows shown."""
    yield '<section><h2>Samples</h2>\n<div class="wide"><table><thead><tr>'
    for number, name in enumerate(COLUMNS):
        yield f'<th class="{_column(number)}">{name}</th>'
    yield "</tr></thead>\n<tbody>\n"
    last = shown.rows.start + limits.rows
    for number, sample in enumerate(shown.samples):
        if sample.row >= last:
            break
        values = [escape(value) for value in cells(sample)]
        if number < limits.samples:
            at = COLUMNS.index("sample")
            values[at] = f'<a href="#s{number}">{values[at]}</a>'
        skipped = ' class="skipped"' if sample.segment.skipped else ""
        row = "".join(f'<td class="{_column(n)}">{value}</td>' for n, value in enumerate(values))
        yield f"<tr{skipped}>{row}</tr>\n"
    yield "</tbody></table></div></section>\n"


def _column(number: int) -> str:
    return "number" if number < NUMBERS else "code" if COLUMNS[number] == "digest" else "word"


def _cards(shown: RebuiltBatch, limits: Limits) -> Iterator[str]:
    """What the model reads of each sample: its images and its tokens."""
    yield '<section><h2>What the model reads</h2>\n<p class="legend">'
    yield (
        "<span><mark>supervised</mark></span><span><kbd>special token</kbd></span>"
        "<span><kbd class='image'>image</kbd> all positions of one</span>"
        "<span>pointing at a token shows its id and position</span>"
        "<span>a click on an image shows it at its full size</span></p>\n"
    )
    first, shown_images = 0, 0
    for number, sample in enumerate(shown.samples[: limits.samples]):
        part = sample.segment
        count = max(0, min(part.images, limits.images - shown_images))
        yield f'<article id="s{number}"><h3>row {sample.row} <b>{escape(name_of(sample))}</b></h3>'
        yield _facts(sample)
        # One image or two stand beside the text, more of them above it.
        yield f'<div class="{"beside" if 0 < count <= BESIDE else "above"}">'
        yield from _images(shown, sample, first, count)
        yield from _tokens(shown, sample, limits.tokens)
        yield "</div></article>\n"
        first, shown_images = first + part.images, shown_images + count
    samples = min(len(shown.samples), limits.samples)
    yield _note(left_out(len(shown.batch.images), shown_images, "image", "--images"))
    yield _note(left_out(len(shown.samples), samples, "sample", "--samples"))
    yield "</section>\n"


def _facts(sample: RebuiltSample) -> str:
    part = sample.segment
    facts = [part.source, f"position {part.ref.position:,}", f"epoch {sample.epoch}",
             f"{part.length:,} ids"]  # fmt: skip
    if part.truncated_tokens:
        facts.append(f"{cut(part)} cut")
    if part.skipped:
        return f'<p class="problem">skipped: {escape(part.skipped)}</p>'
    return f'<p class="facts">{escape(" · ".join(facts))}</p>'


def _images(shown: RebuiltBatch, sample: RebuiltSample, first: int, count: int) -> Iterator[str]:
    """Figures of the first `count` images of a sample, which begin at `first` in the batch."""
    if not sample.segment.images:
        return
    size = shown.batch.image_size
    yield '<div class="figures">'
    for number in range(count):
        image = shown.batch.images[first + number]
        caption = f"{name_of(sample)} · {image_size(sample, number, size)}"
        yield (
            '<figure><label><input type="checkbox" aria-label="full size">'
            f'<img alt="image {number}" width="{size}" height="{size}" '
            f'src="data:image/png;base64,{_png(seen(image, size))}"></label>'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    yield "</div>"
    if count < sample.segment.images:
        yield _note(left_out(sample.segment.images, count, "image", "--images"))


def _png(pixels: Tensor) -> str:
    """A uint8 [H, W, 3] image as PNG, in base64."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _tokens(shown: RebuiltBatch, sample: RebuiltSample, limit: int) -> Iterator[str]:
    """The tokens of a sample, the supervised ones in marks."""
    row = sample.row - shown.rows.start
    start, marked = sample.segment.start, False
    yield '<div class="tokens">'
    every = spans(shown.batch, row, sample.segment, shown.tokenizer)
    for count, span in enumerate(every):
        if count == limit:
            yield "</mark>" if marked else ""
            marked = False
            yield _note(left_out(sample.segment.length, span.start, "id", "--tokens"))
            break
        if span.supervised != marked:
            yield "<mark>" if span.supervised else "</mark>"
            marked = span.supervised
        yield _token(span, start)
    yield "</mark>" if marked else ""
    yield "</div>"


def _token(span: Span, start: int) -> str:
    """One token; its tooltip says id and position, in the sample and in the row."""
    ids = " ".join(map(str, span.ids[:4])) if span.kind != IMAGE else str(span.ids[0])
    last = span.start + len(span.ids) - 1
    at = f"position {span.start}" + (f" to {last}" if len(span.ids) > 1 else "")
    tip = f"id {ids}, {at}" + (f", {start + span.start} in the row" if start else "")
    if span.kind == IMAGE:
        return f'<kbd class="image" title="{tip}">image {len(span.ids)}</kbd>'
    if span.kind == SPECIAL:
        return f'<kbd title="{tip}">{escape(span.text)}</kbd>'
    return f'<span title="{tip}">{token_html(span.text)}</span>'


DOT = "\u00b7"

_ODD = re.compile(r"\n| {2,}| (?=\n|$)")
"""Line ends, and spaces that do not simply stand between two words."""


def token_html(text: str) -> str:
    """A token's text as HTML, in which line ends and odd spaces show."""
    pieces, last = [], 0
    for match in _ODD.finditer(text):
        odd = match[0]
        shown = f"<u>{visible(odd)}</u><br>" if odd == "\n" else f"<u>{DOT * len(odd)}</u>"
        pieces += [escape(text[last : match.start()]), shown]
        last = match.end()
    return "".join([*pieces, escape(text[last:])])


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>' if text else ""
