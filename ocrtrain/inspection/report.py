"""Describes a rebuilt batch as text for a terminal: its samples, how they were packed, their text.

The wording and the limits are shared with the page and the contact sheet. Nothing is printed or
written here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ocrdata.images.letterbox import letterbox_geometry
from ocrdata.images.modes import ImageLayout
from ocrtrain.data.batch import Batch
from ocrtrain.data.batch_rows import Segment
from ocrtrain.inspection.limits import Limits
from ocrtrain.inspection.rebuild import RebuiltBatch, RebuiltSample
from ocrtrain.inspection.token_spans import first_turn, visible

PREVIEW = 90
"""Characters shown of a question, and of an answer."""


def figures(rebuilt: RebuiltBatch) -> dict[str, Any]:
    """The report as JSON values: the batch, and its samples as in the table, all of them."""
    batch = rebuilt.batch
    return {
        "run": rebuilt.request.run,
        "step": rebuilt.request.step,
        "steps": rebuilt.steps,
        "rank": rebuilt.request.rank if rebuilt.request.world else None,
        "world": rebuilt.request.world or None,
        "identity": rebuilt.identity,
        "recorded": rebuilt.recorded or None,
        "problem": None if rebuilt.problem is None else str(rebuilt.problem),
        "rows": len(batch.input_ids),
        "images": len(batch.images),
        "tokens": batch.tokens,
        "supervised": batch.supervised,
        "padding": padding(batch),
        "truncated_tokens": batch.truncated_tokens,
        "truncated_turns": batch.truncated_turns,
        "skipped": len(batch.skipped),
        "samples": [_sample_figures(rebuilt, sample) for sample in rebuilt.samples],
    }


def _sample_figures(rebuilt: RebuiltBatch, sample: RebuiltSample) -> dict[str, Any]:
    part, row = sample.segment, sample.row - rebuilt.rows.start
    question, answer = first_turn(rebuilt.batch, row, part, rebuilt.tokenizer)
    return {
        "row": sample.row,
        "start": part.start,
        "length": part.length,
        "images": [{"width": width, "height": height} for width, height in sample.sizes],
        "truncated_tokens": part.truncated_tokens,
        "epoch": sample.epoch,
        "position": part.ref.position,
        "source": part.source,
        "shard": part.ref.shard,
        "key": part.ref.key,
        "digest": part.ref.digest,
        "skipped": part.skipped or None,
        "question": None if part.skipped else question,
        "answer": None if part.skipped else answer,
    }


def plural(count: int, what: str) -> str:
    """A count with its noun: '1 row', '1,024 rows'."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def padding(batch: Batch) -> float:
    """The fraction of the batch's positions that are padding."""
    return 1 - batch.tokens / batch.input_ids.numel()


def summary(rebuilt: RebuiltBatch) -> list[str]:
    """The lines about the batch as a whole, without its samples."""
    batch = rebuilt.batch
    high, wide = batch.input_ids.shape
    lines = [
        f"{rebuilt.request.run}, {rebuilt.title}: {_sources(batch)}",
        rebuilt.verdict,
        f"{plural(high, 'row')}, {plural(len(batch.segments), 'sample')}, "
        f"{plural(len(batch.images), 'image')}; {plural(batch.tokens, 'token')}, "
        f"{batch.supervised:,} of them supervised; padding "
        f"{padding(batch):.1%} of {high:,} x {wide:,} positions",
    ]
    if batch.truncated_tokens:
        samples = plural(sum(bool(part.truncated_tokens) for part in batch.segments), "sample")
        limit = rebuilt.config.seq_len
        lines.append(f"truncated to --seq-len {limit}: {samples} lost {truncation(batch)}")
    if batch.skipped:
        lines.append(f"skipped and masked: {plural(len(batch.skipped), 'sample')}")
    if repeated(batch):
        lines.append(f"repeated: {plural(repeated(batch), 'sample')}")
    return lines


def truncation(part: Batch | Segment) -> str:
    """How much was truncated: '12 tokens', '364 tokens with 1 whole turn'."""
    turns = f" with {plural(part.truncated_turns, 'whole turn')}" if part.truncated_turns else ""
    return plural(part.truncated_tokens, "token") + turns


def repeated(batch: Batch) -> int:
    """The number of samples that also occur earlier in the batch, in any epoch."""
    return len(batch.segments) - len({(part.source, part.ref) for part in batch.segments})


def _sources(batch: Batch) -> str:
    """How many rows each source has: '12 rows of charts, 4 of sums'."""
    names = list(dict.fromkeys(batch.sources))
    counts = [(batch.sources.count(name), visible(name)) for name in names]
    return ", ".join(
        f"{plural(count, 'row') if number == 0 else count} of {name}"
        for number, (count, name) in enumerate(counts)
    )


COLUMNS = ("row", "start", "length", "images", "truncated", "epoch", "position", "source", "sample",
           "digest")  # fmt: skip
NUMBERS = 7
"""The first so many columns are numbers."""


def cells(sample: RebuiltSample) -> tuple[str, ...]:
    """A sample's line of the table: its value in each of COLUMNS."""
    part = sample.segment
    return (
        str(sample.row), str(part.start), str(part.length), str(part.images),
        str(part.truncated_tokens), str(sample.epoch), str(part.ref.position),
        visible(part.source), name_of(sample), part.ref.digest,
    )  # fmt: skip


def name_of(sample: RebuiltSample) -> str:
    """A sample's shard and key: 'chartqa-003.tar:000003127'."""
    return visible(f"{sample.segment.ref.shard}:{sample.segment.ref.key}")


def image_size(sample: RebuiltSample, number: int, layout: ImageLayout) -> str:
    """A sample's n-th image: '640 x 480 px, letterboxed to 256 x 192 in 256 x 256'."""
    (width, height), size = sample.sizes[number], layout.size
    box = letterbox_geometry(width, height, size)
    return f"{width} x {height} px, letterboxed to {box.width} x {box.height} in {size} x {size}"


def left_out(total: int, shown: int, what: str, flag: str) -> str:
    """A note such as 'not shown: 9 images (--images N)'; "" if all are shown."""
    return f"not shown: {plural(total - shown, what)} ({flag} N)" if total > shown else ""


def describe(rebuilt: RebuiltBatch, limits: Limits) -> str:
    """The whole report: the summary, a table of samples, and the start of each sample's text."""
    samples = rebuilt.samples[: limits.samples]
    lines = [*summary(rebuilt), "", *_table([COLUMNS, *map(cells, samples)]), ""]
    for sample in samples:
        lines += _sample(rebuilt, sample)
    missing = left_out(len(rebuilt.samples), len(samples), "sample", "--samples")
    return "\n".join([*lines, missing] if missing else lines)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table: numbers aligned to the right, words to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = [
            cell.rjust(width) if number < NUMBERS else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(padded).rstrip()


def _sample(rebuilt: RebuiltBatch, sample: RebuiltSample) -> list[str]:
    """A sample's name, and the start of its first question and answer."""
    head = f"row {sample.row}  {name_of(sample)}"
    if sample.segment.skipped:
        return [head, f"    skipped: {visible(sample.segment.skipped)}"]
    question, answer = excerpts(rebuilt, sample)
    return [head, f"    question {question}", f"    answer   {answer or '(no supervised tokens)'}"]


def excerpts(
    rebuilt: RebuiltBatch, sample: RebuiltSample, length: int = PREVIEW
) -> tuple[str, str]:
    """A sample's first question and answer, made visible, each at most `length` characters."""
    row = sample.row - rebuilt.rows.start
    question, answer = first_turn(rebuilt.batch, row, sample.segment, rebuilt.tokenizer)
    return _shorten(question, length), _shorten(answer, length)


def _shorten(text: str, length: int) -> str:
    text = visible(text[: length + 1])
    return text if len(text) <= length else text[: length - 1] + "\u2026"
