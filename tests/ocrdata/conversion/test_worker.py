"""Stretches of shards: every row accounted for, one go over the source, reports that add up."""

from __future__ import annotations

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
from ocrdata.conversion.worker import REPORT_ROWS, ConversionReport, ConversionTask, neighbours
from ocrdata.errors import DiskError, RejectedRow, SourceError
from ocrdata.reading.view import open_shards
from ocrdata.sample import Sample, from_turns
from ocrdata.shards.names import make_key
from tests.support.numbered import Numbered, reads

BAD = frozenset({3, 6, 21, 24})


@pytest.fixture
def options(tmp_path: Path) -> ConversionOptions:
    return ConversionOptions(tmp_path / "out", "set", shard_samples=10, max_reject_fraction=0.2)


def stretch(folder: Path, source: Any, *, start: int = 0, per_shard: int = 10) -> ConversionTask:
    """A stretch over all of a source, its work folder begun."""
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


def test_a_source_that_miscounts_is_found_out(options: ConversionOptions) -> None:
    with pytest.raises(SourceError, match="numbered: row 13 came where row 12 was due"):
        convert(Gap(45), options)
    with pytest.raises(SourceError, match="numbered: the rows end at 33, 45 were counted"):
        convert(Short(45), options)


class Late(Numbered):
    """A source that goes on beyond what was asked for."""

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
    """A source that begins before what was asked for."""

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        return super().rows(max(0, start - 1), stop)


@pytest.mark.parametrize(
    ("source", "shards", "message"),
    [
        (Twice(45), [0, 1, 2], "row 17 came where row 18 was due"),
        (Early(45), [2], "row 19 came where row 20 was due"),
        (Short(45), [3], "the rows end at 33, 40 were counted"),
        (Short(45), [4], "the rows end at 40, 45 were counted"),
        (Gap(45), [1], "row 13 came where row 12 was due"),
        (Numbered(45, breaks_at=12), [1], "the hub does not deliver"),
    ],
)
def test_a_shard_with_wrong_rows_is_not_made(
    tmp_path: Path, source: Numbered, shards: list[int], message: str
) -> None:
    made = stretch(tmp_path, source)
    with pytest.raises(SourceError, match=message):
        made.make(shards, lambda _: None)
    broken = shards[-1] if len(shards) == 1 else 1
    assert made.work.read_record(broken) is None
    assert not (made.folder / made.layout.file(broken)).exists()


def test_rows_beyond_those_asked_for_are_not_taken(tmp_path: Path) -> None:
    made = stretch(tmp_path, Late(45))
    made.make([1, 2], lambda _: None)
    assert positions(made, 1) + positions(made, 2) == list(range(10, 30))


def positions(made: ConversionTask, shard: int) -> list[int]:
    """The origin rows of the samples in a shard."""
    view = open_shards(str(made.folder / made.layout.file(shard)))
    return [sample.meta["row"] for sample in view]


def test_every_row_is_in_its_shard_or_in_its_record(tmp_path: Path) -> None:
    source = Numbered(45, BAD)
    made = stretch(tmp_path, source, start=4)
    wanted = dict(source.rows(0, 45))
    made.make(list(made.layout.shards), lambda _: None)
    for shard in made.layout.shards:
        span = made.layout.span(shard)
        record = made.work.read_record(shard)
        assert record is not None
        view = open_shards(str(made.folder / made.layout.file(shard)))
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
def test_neighbours_are_made_in_one_go(
    tmp_path: Path, shards: list[int], read: list[tuple[int, int]]
) -> None:
    source = Numbered(45, BAD, log=tmp_path / "log")
    made = stretch(tmp_path, source)
    made.make(shards, lambda _: None)
    assert reads(tmp_path / "log") == read
    assert sorted(path.name for path in made.folder.glob("*.tar")) == [
        made.layout.file(shard) for shard in shards
    ]


def test_a_shard_is_the_same_alone_and_among_others(tmp_path: Path) -> None:
    files = []
    for number, shards in enumerate(([0, 1, 2, 3, 4], [2])):
        (tmp_path / str(number)).mkdir()
        made = stretch(tmp_path / str(number), Numbered(45, BAD))
        made.make(shards, lambda _: None)
        names = ("set-002.tar", "set-002.index.parquet", ".set.making/002.json")
        files.append([(made.folder / name).read_bytes() for name in names])
    assert files[0] == files[1]


@pytest.mark.parametrize("per_shard", [10, 32, 33, 100])
def test_reports_add_up_and_come_often(tmp_path: Path, per_shard: int) -> None:
    source = Numbered(150, BAD | {70, 71})
    made = stretch(tmp_path, source, per_shard=per_shard)
    reports: list[ConversionReport] = []
    made.make(list(made.layout.shards), reports.append)
    assert sum(report.rows for report in reports) == 150
    assert all(report.rows <= REPORT_ROWS for report in reports)
    assert [row for report in reports for row, _ in report.rejects] == sorted(BAD | {70, 71})
    good = [row for _, row in source.rows(0, 150) if isinstance(row, Sample)]
    checked = [s for s in good if s.meta.get("row") is not None]
    sizes = [len(sample.to_json()) + sum(map(len, sample.images)) for sample in checked]
    assert sum(report.bytes for report in reports) == sum(sizes)
    shards = [report.shard for report in reports if report.shard is not None]
    records = [made.work.read_record(shard) for shard in made.layout.shards]
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


def test_what_is_no_valid_json_is_rejected(tmp_path: Path) -> None:
    made = stretch(tmp_path, Odd(6))
    made.make([0], lambda _: None)
    record = made.work.read_record(0)
    assert record is not None
    assert [row for row, _ in record.rejects] == [0, 1, 3, 4]
    assert all(reason.startswith("no valid JSON can be written: ") for _, reason in record.rejects)
    assert positions(made, 0) == [2, 5]


def test_a_disk_that_refuses_is_named(tmp_path: Path) -> None:
    made = replace(stretch(tmp_path, Numbered(20)), folder=tmp_path / "gone")
    with pytest.raises(DiskError, match=r"gone"):
        made.make([0], lambda _: None)
    assert made.work.read_record(0) is None


spans = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9)), max_size=12).map(
    lambda steps: [
        range(end - length, end)
        for number, (_, length) in enumerate(steps)
        for end in [sum(gap + size for gap, size in steps[: number + 1])]
    ]
)


@given(spans=spans)
def test_runs_are_what_touches(spans: list[range]) -> None:
    found = list(neighbours(spans))
    covered = [list(range(first.start, last.stop)) for first, last in found]
    assert [n for piece in covered for n in piece] == [n for span in spans for n in span]
    for (_, last), (first, _) in pairwise(found):
        assert last.stop < first.start  # longest: no two of them touch
