"""The work of a conversion's process: no row is lost, one pass per group of consecutive shards, and
reports that add up."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.conversion.convert import convert
from ocrdata.conversion.layout import Layout
from ocrdata.conversion.options import ConversionOptions
from ocrdata.conversion.work_folder import WorkFolder
from ocrdata.conversion.worker import REPORT_ROWS, ConversionReport, ConversionTask, consecutive
from ocrdata.errors import DiskError, RejectedRow, SourceError
from ocrdata.reading.view import open_shards
from ocrdata.sample import Sample, from_turns
from ocrdata.shards.names import make_key
from tests.support.numbered import Numbered, reads

BAD = frozenset({3, 6, 21, 24})


@pytest.fixture
def options(tmp_path: Path) -> ConversionOptions:
    return ConversionOptions(tmp_path / "out", "set", shard_samples=10, max_reject_fraction=0.2)


def make_task(folder: Path, source: Any, *, start: int = 0, per_shard: int = 10) -> ConversionTask:
    """A task that covers all of a source; its work folder exists."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    work = WorkFolder(out, "set")
    work.begin({})
    total = source.count()
    return ConversionTask(source, Layout("set", total, start, total, per_shard), work, out)


class Gap(Numbered):
    """A source that leaves a row out."""

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        yield from (entry for entry in super().rows(start, stop) if entry[0] != 12)


class Short(Numbered):
    """A source that ends early."""

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        yield from super().rows(start, min(stop, 33))


def test_a_source_with_missing_rows_is_an_error(options: ConversionOptions) -> None:
    with pytest.raises(SourceError, match=r"numbered: .*row 13.* row 12"):
        convert(Gap(45), options)
    with pytest.raises(SourceError, match=r"numbered: .*33.* 45"):
        convert(Short(45), options)


class Late(Numbered):
    """A source that gives a row more than requested."""

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        yield from super().rows(start, stop)
        yield stop, self._row(stop)


class Twice(Numbered):
    """A source that gives a row twice."""

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        for row, result in super().rows(start, stop):
            yield row, result
            if row == 17:
                yield row, result


class Early(Numbered):
    """A source that starts a row too early."""

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        return super().rows(max(0, start - 1), stop)


@pytest.mark.parametrize(
    ("source", "shards", "message"),
    [
        (Twice(45), [0, 1, 2], "row 17.* row 18"),
        (Early(45), [2], "row 19.* row 20"),
        (Short(45), [3], "33.* 40"),
        (Short(45), [4], "40.* 45"),
        (Gap(45), [1], "row 13.* row 12"),
        (Numbered(45, breaks_at=12), [1], "the hub does not deliver"),
    ],
)
def test_a_shard_with_wrong_rows_is_not_written(
    tmp_path: Path, source: Numbered, shards: list[int], message: str
) -> None:
    task = make_task(tmp_path, source)
    with pytest.raises(SourceError, match=message):
        task.make(shards, lambda _: None)
    broken = shards[-1] if len(shards) == 1 else 1
    assert task.work.read_record(broken) is None
    assert not (task.folder / task.layout.file(broken)).exists()


class Named(Numbered):
    """A source with better names for its rows, one of which must not be rejected."""

    def rejected(self, row: int, reason: str) -> str:
        if row == 21:
            raise SourceError(f"page {row}: {reason}")
        return f"page {row}: {reason}"


def test_a_source_names_its_rejected_rows_or_stops(tmp_path: Path) -> None:
    task = make_task(tmp_path, Named(45, bad=BAD))
    with pytest.raises(SourceError, match="page 21: message 1"):
        task.make([0, 2], lambda _: None)
    first = task.work.read_record(0)
    assert first is not None and task.work.read_record(2) is None
    assert [row for row, _ in first.rejects] == [3, 6]
    assert all(reason.startswith(f"page {row}: ") for row, reason in first.rejects)


def test_extra_rows_are_ignored(tmp_path: Path) -> None:
    task = make_task(tmp_path, Late(45))
    task.make([1, 2], lambda _: None)
    assert positions(task, 1) + positions(task, 2) == list(range(10, 30))


def positions(task: ConversionTask, shard: int) -> list[int]:
    """The origin rows of the samples in a shard."""
    view = open_shards(str(task.folder / task.layout.file(shard)))
    return [sample.meta["row"] for sample in view]


def test_every_row_is_in_its_shard_or_among_the_rejects(tmp_path: Path) -> None:
    source = Numbered(45, BAD)
    task = make_task(tmp_path, source, start=4)
    wanted = dict(source.rows(0, 45))
    task.make(list(task.layout.shards), lambda _: None)
    for shard in task.layout.shards:
        span = task.layout.span(shard)
        record = task.work.read_record(shard)
        assert record is not None
        view = open_shards(str(task.folder / task.layout.file(shard)))
        good = [row for row in span if row not in BAD]
        assert [view.ref(n).key for n in range(len(view))] == [make_key(row) for row in good]
        assert list(view) == [wanted[row] for row in good]
        assert [row for row, _ in record.rejects] == [row for row in span if row in BAD]
        assert record.shard.samples == len(good)
        assert record.turns == sum(1 + row % 2 for row in good)
        images = [data for sample in view for data in sample.images]
        assert (record.images, record.image_bytes) == (len(images), sum(map(len, images)))


@pytest.mark.parametrize(
    ("shards", "read"),
    [
        ([0, 1, 2, 3, 4], [(0, 45)]),
        ([1], [(10, 20)]),
        ([0, 2, 3], [(0, 10), (20, 40)]),
        ([0, 2, 4], [(0, 10), (20, 30), (40, 45)]),
        ([], []),
    ],
)
def test_consecutive_shards_are_made_in_one_pass(
    tmp_path: Path, shards: list[int], read: list[tuple[int, int]]
) -> None:
    source = Numbered(45, BAD, log=tmp_path / "log")
    task = make_task(tmp_path, source)
    task.make(shards, lambda _: None)
    assert reads(tmp_path / "log") == read
    assert sorted(path.name for path in task.folder.glob("*.tar")) == [
        task.layout.file(shard) for shard in shards
    ]


def test_a_shard_is_the_same_alone_and_among_others(tmp_path: Path) -> None:
    files = []
    for number, shards in enumerate(([0, 1, 2, 3, 4], [2])):
        (tmp_path / str(number)).mkdir()
        task = make_task(tmp_path / str(number), Numbered(45, BAD))
        task.make(shards, lambda _: None)
        names = ("set-002.tar", "set-002.index.parquet", ".set.making/002.json")
        files.append([(task.folder / name).read_bytes() for name in names])
    assert files[0] == files[1]


@pytest.mark.parametrize("per_shard", [10, 32, 33, 100])
def test_reports_add_up_and_are_frequent(tmp_path: Path, per_shard: int) -> None:
    source = Numbered(150, BAD | {70, 71})
    task = make_task(tmp_path, source, per_shard=per_shard)
    reports: list[ConversionReport] = []
    task.make(list(task.layout.shards), reports.append)
    assert sum(report.rows for report in reports) == 150
    assert all(report.rows <= REPORT_ROWS for report in reports)
    assert [row for report in reports for row, _ in report.rejects] == sorted(BAD | {70, 71})
    good = [row for _, row in source.rows(0, 150) if isinstance(row, Sample)]
    checked = [s for s in good if s.meta.get("row") is not None]
    sizes = [len(sample.to_json()) + sum(map(len, sample.images)) for sample in checked]
    assert sum(report.bytes for report in reports) == sum(sizes)
    shards = [report.shard for report in reports if report.shard is not None]
    records = [task.work.read_record(shard) for shard in task.layout.shards]
    assert shards == [record.shard for record in records if record is not None]
    assert reports[-1].shard is not None


class Odd(Numbered):
    """Rows that no JSON or tar can hold."""

    def _row(self, row: int) -> Sample | RejectedRow:
        return [
            from_turns([("q", "a")], [], source="", meta={"x": float("nan")}),
            from_turns([("q", "a")], [], source="", meta={"x": "\udfff"}),
            from_turns([("q", "a")], [], source="", meta={"row": row}),
        ][row % 3]


def test_rows_that_no_valid_json_can_hold_are_rejected(tmp_path: Path) -> None:
    task = make_task(tmp_path, Odd(6))
    task.make([0], lambda _: None)
    record = task.work.read_record(0)
    assert record is not None
    assert [row for row, _ in record.rejects] == [0, 1, 3, 4]
    assert all("JSON" in reason for _, reason in record.rejects)
    assert positions(task, 0) == [2, 5]


def test_a_missing_output_folder_is_named(tmp_path: Path) -> None:
    task = replace(make_task(tmp_path, Numbered(20)), folder=tmp_path / "missing")
    with pytest.raises(DiskError, match="missing"):
        task.make([0], lambda _: None)
    assert task.work.read_record(0) is None


class Unreadable(Numbered):
    """A source that may not be read."""

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        yield from super().rows(start, start + 1)
        raise PermissionError(errno.EACCES, "Permission denied", "input.bin")


def test_an_error_of_the_source_does_not_name_the_shard(tmp_path: Path) -> None:
    task = make_task(tmp_path, Unreadable(20))
    with pytest.raises(PermissionError, match=r"input\.bin"):
        task.make([0], lambda _: None)
    assert not list(task.folder.glob("*.tar"))


spans = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9)), max_size=12).map(
    lambda steps: [
        range(end - length, end)
        for number, (_, length) in enumerate(steps)
        for end in [sum(gap + size for gap, size in steps[: number + 1])]
    ]
)


@given(spans=spans)
def test_consecutive_spans_are_grouped(spans: list[range]) -> None:
    found = list(consecutive(spans))
    covered = [list(range(first.start, last.stop)) for first, last in found]
    assert [n for piece in covered for n in piece] == [n for span in spans for n in span]
    for (_, last), (first, _) in pairwise(found):
        assert last.stop < first.start  # no two groups could be joined
