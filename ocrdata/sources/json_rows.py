"""Rows of a text file, reached by number: lines of JSON Lines, or elements of one JSON array.

One pass counts the rows, hashes the file, and keeps the position of every 1,024th row (8 bytes
each). Memory does not grow with the file: it holds one row and one read buffer. Elements are found
by the standard library's JSON decoder, so a row is what `json.loads` makes of it.
"""

from __future__ import annotations

import codecs
import json
import re
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import xxhash

from ocrdata.errors import ShardError, SourceError
from ocrdata.storage.files import open_regular

STRIDE = 1_024
CHUNK_BYTES = 1 << 16
_LINE_BYTES = 1 << 16
"""Read of the first line, which may be a whole array, to see what it begins with."""

_SEPARATORS = re.compile(r"[ \t\r\n,]*")
_LONGEST_WORD = len("-Infinity")


class RowFile:
    """One file of rows. Raises SourceError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._positions = array("q")
        self.count = 0
        with _open(path) as file:
            start = _array_start(path, file)
            self.is_array = start is not None
            file.seek(0)
            hashed = _HashedFile(file)
            hashed.read(start or 0)
            for number, (position, row) in enumerate(self._walk(hashed, start or 0)):
                if number % STRIDE == 0:
                    self._positions.append(position)
                if not row.isspace():  # blank lines at the end are not rows
                    self.count = number + 1
        self.size, self.digest = hashed.size, hashed.hasher.hexdigest()

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Number and bytes of rows `[start, stop)`. Reading begins at most 1,023 rows before.

        Raises SourceError if the file has changed or cannot be read any more.
        """
        stop = min(stop, self.count)
        if start >= stop:
            return
        with _open(self.path) as file:
            if file.seek(0, 2) != self.size:
                raise SourceError(f"{self.path}: the file has changed since its rows were counted")
            block = start // STRIDE
            file.seek(self._positions[block])
            number = block * STRIDE
            for _, row in self._walk(file, self._positions[block]):
                if number >= stop:
                    return
                if number >= start:
                    yield number, row
                number += 1

    def _walk(self, file: BinaryIO | _HashedFile, position: int) -> Iterator[tuple[int, bytes]]:
        """Each row from `position` on, with its own position in bytes."""
        if self.is_array:
            yield from _elements(self.path, file, position)
            return
        while line := file.readline():
            yield position, line
            position += len(line)


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; errors of opening and reading it become a SourceError."""
    try:
        with open(open_regular(path), "rb") as file:
            yield file
    except OSError as exc:
        raise SourceError(f"{path}: {exc.strerror}") from exc
    except ShardError as exc:  # a folder, a pipe
        raise SourceError(str(exc)) from exc


class _HashedFile:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.hasher, self.size = file, xxhash.xxh3_128(), 0

    def read(self, size: int) -> bytes:
        return self._add(self._file.read(size))

    def readline(self) -> bytes:
        return self._add(self._file.readline())

    def _add(self, data: bytes) -> bytes:
        self.hasher.update(data)
        self.size += len(data)
        return data


def _array_start(path: Path, file: BinaryIO) -> int | None:
    """The position after the `[` of a file that is one JSON array of records; None for lines.

    A line may begin with `[` too: nanochat's bare list of messages, whose first element has a role.
    """
    line = b"\n"
    while line and not line.strip():
        begin = file.tell()
        line = file.readline(_LINE_BYTES)
    if not line.removeprefix(b"\xef\xbb\xbf").strip().startswith(b"["):
        return None
    start = begin + line.index(b"[") + 1
    # If the first element is a record, the rest is not read: the line may be the whole file.
    file.seek(start)
    try:
        if _is_record(json.loads(next(_elements(path, file, start))[1])):
            return start
    except (StopIteration, SourceError):
        pass
    file.seek(start - 1)
    try:
        value = json.loads(file.readline().strip())
    except (ValueError, RecursionError):
        return start
    return start if value and _is_record(value[0]) else None


def _is_record(value: object) -> bool:
    return isinstance(value, dict) and "role" not in value


def _elements(
    path: Path, file: BinaryIO | _HashedFile, position: int
) -> Iterator[tuple[int, bytes]]:
    """(position, bytes) of each element of an array.

    `position` is that of the file in bytes: after the array's `[`, or where an element begins. Too
    many or too few commas are tolerated. Raises SourceError where the array is broken: unlike a
    line, nothing after a broken element can be trusted.
    """
    scan = json.JSONDecoder().raw_decode
    utf8 = codecs.getincrementaldecoder("utf-8")()
    text, at, ended = "", 0, False
    while True:
        # The pattern also matches nothing, so there always is a match.
        start, at = at, _SEPARATORS.match(text, at).end()  # type: ignore[union-attr]
        position += at - start
        if text.startswith("]", at):
            break
        try:
            end = scan(text, at)[1]
        except RecursionError as exc:
            raise SourceError(
                f"{path}: the element at byte {position:,} is nested too deeply"
            ) from exc
        except json.JSONDecodeError as exc:
            # What is cut off by the end of the buffer fails near that end, but for a string.
            near_end = len(text) - exc.pos <= _LONGEST_WORD or exc.msg.startswith("Unterminated")
            if ended or not near_end:
                place = position + len(text[at : exc.pos].encode())
                raise SourceError(
                    f"{path}: invalid JSON array at byte {place:,}: {exc.msg}"
                ) from exc
            end = len(text)
        except ValueError as exc:  # an integer of too many digits
            raise SourceError(f"{path}: invalid JSON array at byte {position:,}: {exc}") from exc
        if not ended and len(text) - end < 3:  # a number may go on, `1.5` or `1e+5`
            # At least as much again as is kept, so that a long element is decoded a few times only.
            data = file.read(max(CHUNK_BYTES, len(text) - at))
            text, at, ended = text[at:], 0, not data
            try:
                text += utf8.decode(data, ended)
            except UnicodeDecodeError as exc:
                place = position + len(text.encode()) + exc.start
                raise SourceError(
                    f"{path}: invalid JSON array at byte {place:,}: not UTF-8"
                ) from exc
            continue
        row = text[at:end].encode()
        yield position, row
        position += len(row)
        at = end
    rest = text[at + 1 :].encode()
    while not rest.strip():
        position += len(rest)
        rest = file.read(CHUNK_BYTES)
        if not rest:
            return
    place = position + 1 + len(rest) - len(rest.lstrip())
    raise SourceError(f"{path}: invalid JSON array: text after its end at byte {place:,}")
