from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import SourceError
from ocrdata.sources.json_rows import STRIDE, RowFile

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
SPACE = st.sampled_from(["", " ", "\n", "\n  ", "\r\n\t"])


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def values(file: RowFile, start: int, stop: int) -> list[Any]:
    return [json.loads(row) for _, row in file.rows(start, stop)]


@settings(max_examples=60, deadline=None)
@given(records=st.lists(st.dictionaries(st.text(), JSON, max_size=3)), space=SPACE, data=st.data())
def test_lines_and_arrays_give_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[Any],
    space: str,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    inner = f"{space},{space}".join(json.dumps(record, ensure_ascii=False) for record in records)
    start = data.draw(st.integers(0, len(records)))
    stop = data.draw(st.integers(0, len(records) + 2))
    for name, text in (("a.jsonl", lines), ("b.json", f"{space}[{space}{inner}{space}]{space}")):
        file = RowFile(write(folder / name, text))
        if name == "b.json" and not records:
            continue  # an empty list on a line is a line: an empty bare conversation
        assert file.count == len(records)
        assert values(file, start, stop) == records[start:stop]
        raw = (folder / name).read_bytes()
        assert (file.size, file.digest) == (len(raw), xxhash.xxh3_128_hexdigest(raw))


@pytest.mark.parametrize("array", [False, True])
def test_a_row_far_in_is_reached_without_what_comes_before(tmp_path: Path, array: bool) -> None:
    records = [{"n": n, "text": "é" * (n % 200)} for n in range(3 * STRIDE + 5)]
    text = json.dumps(records, indent=1, ensure_ascii=False)
    if not array:
        text = "".join(json.dumps(record) + "\n" for record in records)
    file = RowFile(write(tmp_path / "rows", text))
    assert file.is_array is array and file.count == len(records)
    for start in (0, 1, STRIDE - 1, STRIDE, 2 * STRIDE + 7, 3 * STRIDE + 4):
        assert values(file, start, start + 3) == records[start : start + 3]
    # Damage before the place: it is not even looked at.
    raw = bytearray(file.path.read_bytes())
    raw[: len(raw) // 3] = b"#" * (len(raw) // 3)
    file.path.write_bytes(raw)
    assert values(file, 2 * STRIDE + 7, 2 * STRIDE + 9) == records[2 * STRIDE + 7 :][:2]


def test_an_element_longer_than_a_chunk(tmp_path: Path) -> None:
    records = [{"text": "x" * 300_000}, {"n": 1}, 123456, {"text": "ü" * 200_000}]
    file = RowFile(write(tmp_path / "a.json", json.dumps(records, indent=1, ensure_ascii=False)))
    assert values(file, 0, 4) == records


def test_bare_lists_of_messages_are_lines(tmp_path: Path) -> None:
    line = json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])
    file = RowFile(write(tmp_path / "a.jsonl", f"\n{line}\n{line}"))
    assert not file.is_array and file.count == 3


def test_an_array_on_one_line_and_a_byte_order_mark(tmp_path: Path) -> None:
    file = RowFile(write(tmp_path / "a.json", '[{"id": 1}, {"id": 2}]'))
    assert file.is_array and values(file, 0, 2) == [{"id": 1}, {"id": 2}]
    marked = RowFile(write(tmp_path / "b.json", b"\xef\xbb\xbf[\n{}\n]"))
    assert marked.is_array and marked.count == 1


@pytest.mark.parametrize("text", ['[\n{"a": 1},', '[\n{"a": 1} {"b": }]', '[\n"\xff"'])
def test_a_broken_array_is_an_error_with_its_place(tmp_path: Path, text: str) -> None:
    with pytest.raises(SourceError, match=r"a\.json: no JSON array at byte \d+"):
        RowFile(write(tmp_path / "a.json", text.encode("latin-1")))


def test_a_file_that_has_changed_or_cannot_be_read(tmp_path: Path) -> None:
    file = RowFile(write(tmp_path / "a.jsonl", "{}\n{}\n"))
    write(file.path, "{}\n")
    with pytest.raises(SourceError, match="has changed since its rows were counted"):
        list(file.rows(0, 2))
    with pytest.raises(SourceError, match="not a regular file"):
        RowFile(tmp_path)


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    file = RowFile(write(tmp_path / "a.jsonl", ""))
    assert file.count == 0 and list(file.rows(0, 0)) == []


@pytest.mark.parametrize("tail", ["", "\n", "\n\n", " \n\t\r\n", "\n" * 2_000])
def test_empty_lines_at_the_end_are_no_rows(tmp_path: Path, tail: str) -> None:
    file = RowFile(write(tmp_path / "a.jsonl", '{"n": 1}\n\n{"n": 2}\n' + tail))
    assert file.count == 3
    assert [row.strip() for _, row in file.rows(0, 9)] == [b'{"n": 1}', b"", b'{"n": 2}']
    assert RowFile(write(tmp_path / "b.jsonl", tail)).count == 0
