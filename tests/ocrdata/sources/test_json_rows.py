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
from ocrdata.sources import json_rows, text_files
from ocrdata.sources.json_rows import ARRAYS, LINES, STRIDE, VALUES, RowFile

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
    assert file.way == (ARRAYS if array else LINES) and file.count == len(records)
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
    assert file.way == LINES and file.count == 2
    # One record that is spread over several lines is still one.
    spread = json.dumps(json.loads(line), indent=1)
    file = RowFile(write(tmp_path / "b.jsonl", f"{spread}\n{line}\n{spread}"))
    assert (file.way, file.count) == (VALUES, 3)
    assert values(file, 0, 4) == [json.loads(line)] * 3
    # An array of them is an array.
    file = RowFile(write(tmp_path / "c.json", f"[{line}, {spread}]"))
    assert file.way == ARRAYS and values(file, 0, 4) == [json.loads(line)] * 2


def test_an_array_on_one_line_or_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = RowFile(write(tmp_path / "a.json", '[{"id": 1}, {"id": 2}]'))
    assert file.way == ARRAYS and values(file, 0, 2) == [{"id": 1}, {"id": 2}]
    marked = RowFile(write(tmp_path / "b.json", b"\xef\xbb\xbf[\n{}\n]"))
    assert marked.way == ARRAYS and marked.count == 1


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
        (b'[\n{"a": 1}] {"b": 2}, x', 22),
        (b'[{"a": 1}]\n</body> 502', 11),
        (b'[{"a": 1}]\n[{"b": 2}]]', 21),
        (b'[{"a": 1}]\n[{"b": 2}', 20),
        (b'{\n"a": 1}\n{\n"b": }', 17),
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
    read = text_files._Chunks.readinto

    def record(file: text_files._Chunks, buffer: memoryview) -> int:
        sizes.append(size := read(file, buffer))
        return size

    monkeypatch.setattr(text_files._Chunks, "readinto", record)
    with pytest.raises(SourceError, match="byte 8:"):
        RowFile(path)
    assert 0 < sum(sizes) < 3 * json_rows.CHUNK_BYTES


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


@settings(max_examples=100, deadline=None)
@given(
    documents=st.lists(
        st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=4)
        | st.dictionaries(st.text(), JSON, max_size=2),
        max_size=5,
    ),
    space=SPACE,
    indent=st.none() | st.just(1),
    chunk=st.integers(1, 40),
)
def test_arrays_one_after_the_other_are_read_to_the_end(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[Any],
    space: str,
    indent: int | None,
    chunk: int,
) -> None:
    documents = [[{"first": 1}], *documents]
    text = space.join(json.dumps(document, indent=indent) for document in documents)
    expected: list[Any] = []
    for document in documents:
        expected += document if isinstance(document, list) else [document]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "CHUNK_BYTES", chunk)
        patch.setattr(json_rows, "STRIDE", 2)
        file = RowFile(write(tmp_path_factory.mktemp("rows") / "a.json", text))
        assert (file.way, file.count) == (ARRAYS, len(expected))
        for start in range(0, len(expected), 3):
            assert values(file, start, len(expected)) == expected[start:]
            assert values(file, start, start + 1) == expected[start : start + 1]
        chosen = range(1, len(expected) + 5, 3)
        assert [number for number, _ in file.some(chosen)] == list(chosen)[: len(expected[1::3])]


def test_objects_that_are_spread_over_lines(tmp_path: Path) -> None:
    records = [{"n": number, "t": ["x", {}]} for number in range(5)]
    text = "\n\n".join(json.dumps(record, indent=2) for record in records)
    file = RowFile(write(tmp_path / "a.json", text))
    assert file.way == VALUES and values(file, 0, 9) == records
    # A first line that is broken is a broken line.
    file = RowFile(write(tmp_path / "b.jsonl", '{"n": \n{"n": 1}\n'))
    assert file.way == LINES and file.count == 2


def test_a_row_larger_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "LARGEST_ROW", 1_000)
    monkeypatch.setattr(json_rows, "CHUNK_BYTES", 400)
    row = json.dumps({"t": "x" * 991})[:-1]
    for text, place in ((f'{{"n": 1}}\n{row}}}\n', 9), (f'[{{"n": 1}}, {row}"}}]', 11)):
        with pytest.raises(SourceError, match=f"the row at byte {place} has more than the 1,000"):
            RowFile(write(tmp_path / "a", text))
    small = json.dumps({"t": "x" * 700})
    assert RowFile(write(tmp_path / "b", f"{small}\n{small}")).count == 2
    assert RowFile(write(tmp_path / "c", f"[{small},{small}]")).count == 2


@pytest.mark.parametrize("tail", ["", "\n", "\n\n", " \n\t\r\n", "\n" * 2_000])
def test_blank_lines_are_not_rows(tmp_path: Path, tail: str) -> None:
    text = f'\ufeff\r\n{{"n": 1}}\r\n{tail}\n{{"n": 2}}\r\n\ufeff{{"n": 3}}{tail}'
    file = RowFile(write(tmp_path / "a.jsonl", text))
    assert file.count == 3
    assert [(number, row.strip()) for number, row in file.rows(0, 9)] == [
        (0, b'{"n": 1}'), (1, b'{"n": 2}'), (2, b'{"n": 3}')]  # fmt: skip
    assert [row.strip() for _, row in file.rows(2, 3)] == [b'{"n": 3}']
    assert RowFile(write(tmp_path / "b.jsonl", tail)).count == 0
