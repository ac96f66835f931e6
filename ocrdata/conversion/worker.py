"""The work of one process of a conversion: reads rows from the source, checks them, and writes
each into its shard or to the rejects. Consecutive shards are made in one pass over the source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ocrdata.conversion.layout import Layout
from ocrdata.conversion.options import KEEP, REJECT
from ocrdata.conversion.rejects import Damage, Reject
from ocrdata.conversion.work_folder import ShardRecord, WorkFolder, input_state
from ocrdata.errors import RejectedRow, SourceError
from ocrdata.runtime.processes import Report
from ocrdata.sample import Sample, check, check_messages, damaged_jpegs
from ocrdata.shards.manifest import ShardInfo
from ocrdata.shards.names import make_key
from ocrdata.shards.writer import ShardWriter
from ocrdata.sources.base import CheckedSource, NamingSource, Source
from ocrdata.sources.conversations import noted_of

REPORT_ROWS = 32
"""Most rows between two reports."""


@dataclass(frozen=True)
class ConversionReport:
    """Progress since the last report; `shard` is the one just finished, if any."""

    rows: int
    bytes: int
    rejects: tuple[Reject, ...]
    shard: ShardInfo | None = None


@dataclass(frozen=True)
class ConversionTask:
    """What a worker needs to make shards into `folder`; `damaged_jpegs` as in the options. Shards
    made elsewhere than in `work.out` are to replace others, and are not delivered."""

    source: Source
    layout: Layout
    work: WorkFolder
    folder: Path
    damaged_jpegs: str = KEEP

    def begin(self) -> None:
        """See `WorkFolder.hold`; the handle is closed when the process exits."""
        self.work.hold()

    def make(self, shards: Sequence[int], report: Report) -> None:
        """Make shards, consecutive ones in one pass. Raises SourceError, DiskError."""
        for first, last in consecutive([range(shard, shard + 1) for shard in shards]):
            start = self.layout.span(first.start).start
            stop = self.layout.span(last.start).stop
            with closing(_checked(self.source, start, stop)) as rows:
                for shard in range(first.start, last.stop):
                    try:
                        self._make_one(shard, rows, report)
                    except BaseException:
                        self.work.discard_unfinished(shard, self.folder / self.layout.file(shard))
                        raise

    def _make_one(
        self, shard: int, rows: Iterator[tuple[int, Sample | RejectedRow]], report: Report
    ) -> None:
        state = input_state(self.source, self.layout.span(shard))  # before any of it is read
        images = turns = image_bytes = 0
        rejects: list[Reject] = []
        damaged: list[Damage] = []
        noted = Counter[str]()
        progress = _Reporter(report)
        path = self.folder / self.layout.file(shard)
        span = self.layout.span(shard)
        with ShardWriter(path) as writer:
            for row, result in rows:
                try:
                    if isinstance(result, RejectedRow):
                        raise result
                    damage = self._check(row, result)
                    if damage and self.damaged_jpegs == REJECT:
                        raise RejectedRow(f"image {damage[0][0]}: damaged JPEG: {damage[0][1]}")
                    size = writer.write(make_key(row), result)
                    images += len(result.images)
                    turns += result.turns
                    image_bytes += sum(map(len, result.images))
                    noted.update(noted_of(result))
                    damaged += [(row, image, words) for image, words in damage]
                    progress.add(size, None)
                except RejectedRow as exc:
                    rejects.append((row, self._reason(row, str(exc))))
                    progress.add(0, rejects[-1])
                if row == span[-1]:
                    break
            info = writer.close()
        record = ShardRecord(
            info,
            images,
            turns,
            image_bytes,
            tuple(rejects),
            writer.tar_size,
            tuple(damaged),
            dict(sorted(noted.items())),
            state,
        )
        if self.folder == self.work.out:
            self.work.finish(shard, record)
        progress.flush(info)

    def _check(self, row: int, sample: Sample) -> list[tuple[int, str]]:
        """The damaged images of a sample that may be written. Raises RejectedRow."""
        if isinstance(self.source, CheckedSource) and self.source.is_checked(row):
            check_messages(sample.messages)
            return []
        check(sample)
        return damaged_jpegs(sample)

    def _reason(self, row: int, reason: str) -> str:
        if isinstance(self.source, NamingSource):
            return self.source.rejected(row, reason)
        return reason


class _Reporter:
    """Sends a report every `REPORT_ROWS` rows."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._rows = self._bytes = 0
        self._rejects: list[Reject] = []

    def add(self, size: int, reject: Reject | None) -> None:
        self._rows += 1
        self._bytes += size
        if reject is not None:
            self._rejects.append(reject)
        if self._rows == REPORT_ROWS:
            self.flush(None)

    def flush(self, shard: ShardInfo | None) -> None:
        self._report(ConversionReport(self._rows, self._bytes, tuple(self._rejects), shard))
        self._rows = self._bytes = 0
        self._rejects = []


def _checked(source: Source, start: int, stop: int) -> Generator[tuple[int, Sample | RejectedRow]]:
    """The source's rows. Raises SourceError if one is out of order, repeated or missing."""
    expected = start
    for row, result in source.rows(start, stop):
        if row != expected or row >= stop:
            raise SourceError(f"{source.name}: got row {row}, expected row {expected}")
        yield row, result
        expected += 1
    if expected != stop:
        raise SourceError(f"{source.name}: the rows end at {expected:,}, expected {stop:,}")


def consecutive(spans: Sequence[range]) -> Iterator[tuple[range, range]]:
    """First and last of each group of spans without a gap between them."""
    breaks = [n + 1 for n, (a, b) in enumerate(pairwise(spans)) if a.stop != b.start]
    for begin, end in pairwise([0, *breaks, len(spans)]):
        if begin < end:
            yield spans[begin], spans[end - 1]
