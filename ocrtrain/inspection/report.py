"""A rebuilt batch as text for a terminal: who is in it, how it was packed, what was read.

Owner of the words and of the limits that the page and the sheet share. It writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ocrdata.images.letterbox import letterbox_geometry
from ocrtrain.data.batch import Batch, Segment
from ocrtrain.inspection.rebuild import RebuiltBatch, RebuiltSample
from ocrtrain.inspection.token_spans import first_turn, visible

PREVIEW = 90
"""Characters of a question, and of an answer, that a line shows."""


@dataclass(frozen=True)
class Limits:
    """How much of a batch is shown: rows, samples with their text, images, and tokens of each
    sample (an image counts as one)."""

    rows: int = 256
    samples: int = 64
    images: int = 32
    tokens: int = 1024


def many(count: int, what: str) -> str:
    """'1 row', '1,024 rows'."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def padding(batch: Batch) -> float:
    """The share of positions that hold nothing."""
    return 1 - batch.tokens / batch.input_ids.numel()


def summary(shown: RebuiltBatch) -> list[str]:
    """The lines that say what the batch is, without a sample of it."""
    batch = shown.batch
    high, wide = batch.input_ids.shape
    lines = [
        f"{shown.asked.run}, {shown.title}: {_sources(batch)}",
        shown.verdict,
        f"{many(high, 'row')}, {many(len(batch.segments), 'sample')}, "
        f"{many(len(batch.images), 'image')}; {many(batch.tokens, 'token')}, "
        f"{batch.supervised:,} of them supervised; padding "
        f"{padding(batch):.1%} of {high:,} x {wide:,} positions",
    ]
    if batch.truncated_tokens:
        samples = many(sum(bool(part.truncated_tokens) for part in batch.segments), "sample")
        lines.append(f"cut to --seq-len {shown.config.seq_len}: {cut(batch)}, of {samples}")
    if batch.skipped:
        lines.append(f"skipped, with a hole in its place: {many(len(batch.skipped), 'sample')}")
    if repeated(batch):
        lines.append(f"there more than once: {many(repeated(batch), 'sample')} too many")
    return lines


def cut(part: Batch | Segment) -> str:
    """'12 tokens', '364 tokens with 1 whole turn': what did not fit."""
    turns = f" with {many(part.truncated_turns, 'whole turn')}" if part.truncated_turns else ""
    return many(part.truncated_tokens, "token") + turns


def repeated(batch: Batch) -> int:
    """Samples of a batch that stand in it before, in whatever epoch."""
    return len(batch.segments) - len({(part.source, part.ref) for part in batch.segments})


def _sources(batch: Batch) -> str:
    """'12 rows of charts, 4 of sums'."""
    names = list(dict.fromkeys(batch.sources))
    counts = [(batch.sources.count(name), visible(name)) for name in names]
    return ", ".join(
        f"{many(count, 'row') if number == 0 else count} of {name}"
        for number, (count, name) in enumerate(counts)
    )


COLUMNS = ("row", "start", "length", "images", "cut", "epoch", "position", "source", "sample",
           "digest")  # fmt: skip
NUMBERS = 7
"""How many of the columns, from the first on, are numbers."""


def cells(sample: RebuiltSample) -> tuple[str, ...]:
    """What the columns say of a sample."""
    part = sample.segment
    return (
        str(sample.row), str(part.start), str(part.length), str(part.images),
        str(part.truncated_tokens), str(sample.epoch), str(part.ref.position),
        visible(part.source), name_of(sample), part.ref.digest,
    )  # fmt: skip


def name_of(sample: RebuiltSample) -> str:
    """'chartqa-003.tar:000003127'."""
    return visible(f"{sample.segment.ref.shard}:{sample.segment.ref.key}")


def image_size(sample: RebuiltSample, number: int, size: int) -> str:
    """'640 x 480 px, letterboxed to 256 x 192 in 256 x 256', of the n-th image of a sample."""
    width, height = sample.sizes[number]
    box = letterbox_geometry(width, height, size)
    return f"{width} x {height} px, letterboxed to {box.width} x {box.height} in {size} x {size}"


def left_out(total: int, shown: int, what: str, flag: str) -> str:
    """'not shown: 9 images (--images N)'; "" where all are."""
    return f"not shown: {many(total - shown, what)} ({flag} N)" if total > shown else ""


def describe(shown: RebuiltBatch, limits: Limits) -> str:
    """The whole text: the summary, a table of samples, and the beginning of each one's text."""
    samples = shown.samples[: limits.samples]
    lines = [*summary(shown), "", *_table([COLUMNS, *map(cells, samples)]), ""]
    for sample in samples:
        lines += _sample(shown, sample)
    missing = left_out(len(shown.samples), len(samples), "sample", "--samples")
    return "\n".join([*lines, missing] if missing else lines)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as aligned lines: numbers to the right, words to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = [
            cell.rjust(width) if number < NUMBERS else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(padded).rstrip()


def _sample(shown: RebuiltBatch, sample: RebuiltSample) -> list[str]:
    """A sample's name, and the beginnings of its first question and answer."""
    head = f"row {sample.row}  {name_of(sample)}"
    if sample.segment.skipped:
        return [head, f"    skipped: {visible(sample.segment.skipped)}"]
    asked, answered = excerpts(shown, sample)
    return [head, f"    asked    {asked}", f"    answered {answered or '(nothing supervised)'}"]


def excerpts(shown: RebuiltBatch, sample: RebuiltSample, length: int = PREVIEW) -> tuple[str, str]:
    """A sample's first question and answer, every character visible, each cut to `length`."""
    row = sample.row - shown.rows.start
    asked, answered = first_turn(shown.batch, row, sample.segment, shown.tokenizer)
    return _short(asked, length), _short(answered, length)


def _short(text: str, length: int) -> str:
    text = visible(text[: length + 1])
    return text if len(text) <= length else text[: length - 1] + "\u2026"
