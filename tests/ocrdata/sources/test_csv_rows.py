from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import RejectedRow, SourceError
from ocrdata.sources.csv_rows import CsvFile, record_of

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
ROWS = st.lists(st.fixed_dictionaries({"file_name": CELLS, "text": CELLS}), max_size=9)


@settings(max_examples=30)
@given(ROWS, st.integers(0, 10), st.integers(0, 10), st.sampled_from(["utf-8", "utf-8-sig"]))
def test_any_range_of_what_the_csv_module_wrote(
    rows: list[dict[str, str]], start: int, stop: int, encoding: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metadata.csv"
        with path.open("w", encoding=encoding, newline="") as file:
            writer = csv.DictWriter(file, ["file_name", "text"])
            writer.writeheader()
            writer.writerows(rows)
        table = CsvFile(path)
        assert (table.count, table.size) == (len(rows), path.stat().st_size)
        assert list(table.rows(start, max(start, stop))) == list(enumerate(rows))[start:stop]


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    path, other = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_text("a,b\n1,2\n")
    other.write_text("a,b\n1,2\n")
    assert CsvFile(path).digest == CsvFile(other).digest
    other.write_text("a,b\n1,3\n")
    assert CsvFile(path).digest != CsvFile(other).digest


def test_empty_and_surplus_cells(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,\n1\n1,2,3\n")
    few, fewer, many = (cells for _, cells in CsvFile(path).rows(0, 3))
    assert record_of(few) == record_of(fewer) == {"a": "1"}
    with pytest.raises(RejectedRow, match="more cells"):
        record_of(many)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\n\xff\n", "UTF-8"),
        (b"a,b,a\n1,2,3\n", "two columns are named 'a'"),
        (b'a\n"b" c\n', "expected after"),
        (b'a\n"b\n', "unexpected end"),
        (b"a\n" + b"x" * 200_000 + b"\n", "field larger than field limit"),
    ],
)
def test_broken_tables(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=rf"a\.csv: .*{message}"):
        CsvFile(path)


def test_missing_tables(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"b\.csv: .*missing"):
        CsvFile(tmp_path / "b.csv")
    path = tmp_path / "a.csv"
    path.write_text("a\n1\n")
    table = CsvFile(path)
    path.unlink()
    with pytest.raises(SourceError, match=r"a\.csv: cannot be read"):
        list(table.rows(0, 1))
