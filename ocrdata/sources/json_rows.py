"""Rows of a text file, reached by number: lines of JSON Lines, or the values of a JSON document.

A file is read in one of three ways, told by its beginning: *lines*, each a record; *arrays*, one or
several, whose elements are the records; *values*, records that are spread over several lines. Empty
lines are no rows. One pass counts the rows, hashes the file, and keeps the position of every
1,024th row (8 bytes each). Memory does not grow with the file: it holds one row and one read
buffer. Values are found by the standard library's JSON decoder, so a row is what `json.loads` makes
of it.
"""

from __future__ import annotations

import codecs
import json
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import xxhash

from ocrdata.errors import SourceError
from ocrdata.sources.text_files import CHUNK_BYTES, MARK, TextFile, opened

STRIDE = 1_024
LARGEST_ROW = 512 << 20
"""Bytes of one row; as much as of a Parquet file (`ocrdata.sources.parquet`)."""
_LINE_BYTES = 1 << 16
"""Read of the first line, which may be a whole array, to see what it begins with."""

LINES, ARRAYS, VALUES = "lines", "arrays", "values"

_SEPARATORS = re.compile(r"[ \t\r\n,\ufeff]*")
_LONGEST_WORD = len("-Infinity")


_Row = tuple[int, bytes]
"""The place of a row and its bytes. A place is its position in the text, doubled, plus 1 inside an
array."""


class RowFile:
    """One file of rows. Raises SourceError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text = TextFile(path)
        self.way = _way(self._text)
        self._places = array("q")
        self.count = self.size = self.text_size = 0
        hasher = xxhash.xxh3_128()

        def seen(data: bytes) -> None:
            hasher.update(data)
            self.size += len(data)

        with self._text.open(seen) as file:
            for place, row in self._walk(file, 0):
                if self.count % STRIDE == 0:
                    self._places.append(place)
                self.count += 1
                self.text_size += len(row)
        self.digest = hasher.hexdigest()

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of rows `[start, stop)`. Reading begins at most 1,023 rows before; in a
        compressed file, or another encoding than UTF-8, at the start.

        Raises SourceError if the file has changed or cannot be read any more.
        """
        return self.some(range(start, stop))

    def some(self, numbers: range) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of these rows, rising, as far as they exist. Rows far apart are reached
        without reading what is between them, where the file allows it."""
        numbers = range(numbers.start, min(numbers.stop, self.count), numbers.step)
        if not numbers:
            return
        if self._text.is_plain and numbers.step > STRIDE:
            for number in numbers:
                yield from self.some(range(number, number + 1))
            return
        block = numbers.start // STRIDE if self._text.is_plain else 0
        self._check_size()
        with self._text.open() as file:
            place = self._places[block] if block else 0
            if block:
                file.seek(place // 2)
            for number, (_, row) in enumerate(self._walk(file, place), block * STRIDE):
                if number in numbers:
                    yield number, row
                if number >= numbers[-1]:
                    return

    def _check_size(self) -> None:
        with opened(self.path) as file:
            if file.seek(0, 2) != self.size:
                raise SourceError(f"{self.path}: the file has changed since its rows were counted")

    def _walk(self, file: BinaryIO, place: int) -> Iterator[_Row]:
        """Each row from a place on."""
        if self.way == LINES:
            return _lines(self.path, file, place // 2)
        return _values(self.path, file, place, arrays=self.way == ARRAYS)


def _lines(path: Path, file: BinaryIO, position: int) -> Iterator[_Row]:
    while line := file.readline(LARGEST_ROW + 1):
        if len(line) > LARGEST_ROW:
            raise _too_large(path, position)
        row = line.removeprefix(MARK)
        if not row.isspace():
            yield 2 * position, row
        position += len(line)


def _too_large(path: Path, position: int) -> SourceError:
    return SourceError(
        f"{path}: the row at byte {position:,} has more than the {LARGEST_ROW:,} bytes that are "
        "allowed"
    )


def _way(text: TextFile) -> str:
    """How the rows of a file are separated, from its first record.

    A line may begin with `[` and be one record: nanochat's bare list of messages, whose first
    element has a role.
    """
    start = _first_byte(text)
    if start not in (b"[", b"{"):
        return LINES
    try:
        first = _first_value(text, arrays=True)
    except SourceError:
        # A broken line spoils its row only, a broken array all that follows.
        return ARRAYS if start == b"[" else LINES
    if start == b"[":
        value = [] if first is None else json.loads(first)
        if isinstance(value, list) or (isinstance(value, dict) and "role" not in value):
            return ARRAYS
        first = _first_value(text, arrays=False)
    return VALUES if first is not None and b"\n" in first else LINES


def _first_byte(text: TextFile) -> bytes:
    with text.open() as file:
        line = b"\n"
        while line and not line.strip():
            line = file.readline(_LINE_BYTES).removeprefix(MARK)
    return line.strip()[:1]


def _first_value(text: TextFile, *, arrays: bool) -> bytes | None:
    with text.open() as file:
        first = next(_values(text.path, file, 0, arrays=arrays), None)
    return None if first is None else first[1]


def _values(path: Path, file: BinaryIO, place: int, *, arrays: bool) -> Iterator[_Row]:
    """Each value of a document from a place on; with `arrays`, their elements in place of them.

    Too many or too few commas are tolerated. Raises SourceError where a value is broken: unlike
    after a line, nothing after it can be trusted.
    """
    scan = json.JSONDecoder().raw_decode
    utf8 = codecs.getincrementaldecoder("utf-8")()
    position, inside = place // 2, bool(place % 2)
    text, at, ended = "", 0, False
    while True:
        # The pattern also matches nothing, so there always is a match.
        start, at = at, _SEPARATORS.match(text, at).end()  # type: ignore[union-attr]
        position += len(text[start:at].encode())
        bracket = text[at : at + 1]
        if (bracket == "]" and inside) or (bracket == "[" and arrays and not inside):
            inside = not inside
            at += 1
            position += 1
            continue
        if ended and not bracket:
            if inside:
                raise _broken(path, position, "it has no end")
            return
        try:
            end = scan(text, at)[1]
        except RecursionError as exc:
            raise SourceError(
                f"{path}: the value at byte {position:,} is nested too deeply"
            ) from exc
        except json.JSONDecodeError as exc:
            # What is cut off by the end of the buffer fails near that end, but for a string.
            near_end = len(text) - exc.pos <= _LONGEST_WORD or exc.msg.startswith("Unterminated")
            if ended or not near_end:
                place = position + len(text[at : exc.pos].encode())
                raise _broken(path, place, exc.msg) from exc
            end = len(text)
        except ValueError as exc:  # an integer of too many digits
            raise _broken(path, position, str(exc)) from exc
        if not ended and len(text) - end < 3:  # a number may go on, `1.5` or `1e+5`
            if len(text) - at > LARGEST_ROW:
                raise _too_large(path, position)
            # At least as much again as is kept, so that a long value is decoded a few times only.
            data = file.read(max(CHUNK_BYTES, len(text) - at))
            text, at, ended = text[at:], 0, not data
            try:
                text += utf8.decode(data, ended)
            except UnicodeDecodeError as exc:
                place = position + len(text.encode()) + exc.start
                raise _broken(path, place, "not UTF-8") from exc
            continue
        row = text[at:end].encode()
        yield 2 * position + inside, row
        position += len(row)
        at = end


def _broken(path: Path, place: int, reason: str) -> SourceError:
    return SourceError(f"{path}: invalid JSON at byte {place:,}: {reason}")
