"""Rows by number: `json.loads` of the whole file is the oracle."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import SourceError
from ocrdata.sources import json_rows
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
def test_a_row_far_into_the_file_is_reached_without_reading_the_rows_before(
    tmp_path: Path, array: bool
) -> None:
    records = [{"n": n, "text": "é" * (n % 200)} for n in range(3 * STRIDE + 5)]
    text = json.dumps(records, indent=1, ensure_ascii=False)
    if not array:
        text = "".join(json.dumps(record) + "\n" for record in records)
    file = RowFile(write(tmp_path / "rows", text))
    assert file.is_array is array and file.count == len(records)
    for start in (0, 1, STRIDE - 1, STRIDE, 2 * STRIDE + 7, 3 * STRIDE + 4):
        assert values(file, start, start + 3) == records[start : start + 3]
    # Damage more than 1,023 rows before is not read.
    raw = bytearray(file.path.read_bytes())
    raw[: len(raw) // 3] = b"#" * (len(raw) // 3)
    file.path.write_bytes(raw)
    assert values(file, 2 * STRIDE + 7, 2 * STRIDE + 9) == records[2 * STRIDE + 7 :][:2]


@pytest.mark.parametrize("array", [False, True])
def test_a_long_row_among_short_ones(tmp_path: Path, array: bool) -> None:
    records = [{"text": "x" * 300_000}, {"n": 1}, {"text": "ü\\\ud800" * 200_000}, {"n": 2}]
    text = json.dumps(records, indent=1)
    if not array:
        text = "".join(json.dumps(record) + "\n" for record in records)
    assert values(RowFile(write(tmp_path / "rows", text)), 0, 4) == records


ELEMENTS = [
    '{"text": "\\ud800"}', '{"text": "\\ud800\\ud800\\udc00 \\ud83d\\ude00 😀"}', '"\\udc00x"',
    '{"n": 123456789012345678901234567890}', "-9223372036854775809", "0.1", "-0.0", "1E+5",
    "1.5e-7", "1e400", '{"n": 0.30000000000000004}', '{"a": 1, "a": 2}', '{"a": true , "b": null}',
    "false", '{"escaped": "\\\\\\"\\u0000\\n]"}', '"é"', "[ ]", "{}", '[[1], {"a": [2]}]',
]  # fmt: skip
EXACT = {"parse_constant": str, "object_pairs_hook": tuple}


@settings(max_examples=300, deadline=None)
@given(
    elements=st.lists(st.sampled_from(ELEMENTS) | JSON.map(json.dumps), min_size=1, max_size=12),
    space=SPACE,
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    chunk=st.integers(1, 40),
)
def test_an_element_is_what_json_loads_makes_of_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory,
    elements: list[str],
    space: str,
    mark: bytes,
    chunk: int,
) -> None:
    text = "[" + f"{space},{space}".join(["{}", *elements]) + f"{space}]{space}"
    path = write(tmp_path_factory.mktemp("rows") / "a.json", mark + text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "CHUNK_BYTES", chunk)  # cut off at every place
        patch.setattr(json_rows, "STRIDE", 3)
        file = RowFile(path)
        start = len(elements) // 2
        found = [row.decode() for _, row in file.rows(0, file.count)]
        assert [row for _, row in file.rows(start, file.count)] == [
            row.encode() for row in found[start:]
        ]
    for hooks in ({}, EXACT):  # of equal keys the last wins; all are still there
        whole = json.loads(text, **hooks)
        assert repr([json.loads(row, **hooks) for row in found]) == repr(whole)


@settings(max_examples=300, deadline=None)
@given(
    elements=st.lists(st.sampled_from(ELEMENTS), min_size=1, max_size=6),
    at=st.integers(0, 200),
    byte=st.sampled_from([*b'x"{}[]:\\', 0, 0xFF]),
    chunk=st.integers(1, 40),
)
def test_a_broken_array_is_an_error_or_has_the_elements_of_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, elements: list[str], at: int, byte: int, chunk: int
) -> None:
    data = bytearray(('[{"a": 1},' + ",\n".join(elements) + "]").encode())
    data[10 + at % (len(data) - 10)] = byte
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "CHUNK_BYTES", chunk)
        try:
            file = RowFile(write(tmp_path_factory.mktemp("rows") / "a.json", bytes(data)))
        except SourceError as exc:
            assert re.search(r"a\.json: .* byte [\d,]+", str(exc))
            with pytest.raises(ValueError):
                json.loads(bytes(data))
            return
        found = values(file, 0, file.count)
    # Too many or too few commas are tolerated.
    with contextlib.suppress(ValueError):
        assert repr(found) == repr(json.loads(bytes(data)))


def test_bare_lists_of_messages_are_lines(tmp_path: Path) -> None:
    line = json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])
    file = RowFile(write(tmp_path / "a.jsonl", f"\n{line}\n{line}"))
    assert not file.is_array and file.count == 3


def test_an_array_on_one_line_or_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = RowFile(write(tmp_path / "a.json", '[{"id": 1}, {"id": 2}]'))
    assert file.is_array and values(file, 0, 2) == [{"id": 1}, {"id": 2}]
    marked = RowFile(write(tmp_path / "b.json", b"\xef\xbb\xbf[\n{}\n]"))
    assert marked.is_array and marked.count == 1


DIGITS = b"1" * 5_000
"""More than Python turns into an integer: as in a line, `json.loads` refuses it."""


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b'[\n{"a": 1},', 11),
        (b'[\n{"a": 1} {"b": }]', 17),
        (b'[\n"\xff"', 3),
        (b'[\n{"a": "\xc3', 9),
        (b'[\n{"a": "b', 8),
        ('[\n{"ä": 1}, {"ü": nul}]'.encode(), 20),
        (b'[\n{"a": 1}] {"b": 2}', 12),
        (b'[\n{"a": 1}]\n[{"b": 2}]', 12),
        (b"[\n{}, " + DIGITS + b"]", 6),
        (b"[\n{}, " + b"[" * 100_000, 6),
    ],
)
def test_a_broken_array_is_an_error_with_its_place(tmp_path: Path, data: bytes, place: int) -> None:
    with pytest.raises(SourceError, match=rf"a\.json: .*byte {place:,}\b"):
        RowFile(write(tmp_path / "a.json", data))


def test_a_broken_element_is_found_before_the_rest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.json", b'[\n{"a": nul},\n' + b'{"b": 1},\n' * 100_000 + b"{}]")
    sizes = []
    read = json_rows._HashedFile.read

    def record(file: json_rows._HashedFile, size: int) -> bytes:
        data = read(file, size)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(json_rows._HashedFile, "read", record)
    with pytest.raises(SourceError, match="byte 8:"):
        RowFile(path)
    assert sum(sizes) < 3 * json_rows.CHUNK_BYTES


def test_an_array_on_one_line_is_not_read_whole_to_tell_it_from_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.json", json.dumps([{"n": n} for n in range(50_000)]))
    seen = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text: seen.append(len(text)) or loads(text))
    assert RowFile(path).count == 50_000
    assert sum(seen) < 100


def test_a_changed_or_unreadable_file(tmp_path: Path) -> None:
    file = RowFile(write(tmp_path / "a.jsonl", "{}\n{}\n"))
    write(file.path, "{}\n")
    with pytest.raises(SourceError, match=r"a\.jsonl: .*changed"):
        list(file.rows(0, 2))
    with pytest.raises(SourceError, match="not a regular file"):
        RowFile(tmp_path)


def test_a_file_removed_after_it_was_counted(tmp_path: Path) -> None:
    file = RowFile(write(tmp_path / "a.jsonl", "{}\n{}\n"))
    file.path.unlink()
    with pytest.raises(SourceError, match=r"a\.jsonl: No such file"):
        list(file.rows(0, 2))
    file.path.mkdir()
    with pytest.raises(SourceError, match=r"a\.jsonl: not a regular file"):
        list(file.rows(0, 2))


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    file = RowFile(write(tmp_path / "a.jsonl", ""))
    assert file.count == 0 and list(file.rows(0, 0)) == []


@pytest.mark.parametrize("tail", ["", "\n", "\n\n", " \n\t\r\n", "\n" * 2_000])
def test_blank_lines_at_the_end_are_not_rows(tmp_path: Path, tail: str) -> None:
    file = RowFile(write(tmp_path / "a.jsonl", '{"n": 1}\n\n{"n": 2}\n' + tail))
    assert file.count == 3
    assert [row.strip() for _, row in file.rows(0, 9)] == [b'{"n": 1}', b"", b'{"n": 2}']
    assert RowFile(write(tmp_path / "b.jsonl", tail)).count == 0
