"""Rows of a text file reached by number: lines of JSON Lines, or elements of one JSON array.

Owner of telling the two apart and of where each row begins. One pass counts the rows, takes the
file's digest, and keeps the position of every 1,024th row (8 bytes each), which is all the memory
it needs whatever the file's size.
"""

from __future__ import annotations

import codecs
import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import xxhash

from ocrdata.errors import ShardError, SourceError
from ocrdata.storage.files import open_regular

STRIDE = 1_024
CHUNK_BYTES = 1 << 16


class RowFile:
    """One file of rows. Raises SourceError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._positions = array("q")
        self.count = 0
        try:
            with open(open_regular(path), "rb") as file:
                self.is_array = _is_array(file)
                file.seek(0)
                hashed = _Hashed(file)
                for number, (position, row) in enumerate(self._walk(hashed, 0)):
                    if number % STRIDE == 0:
                        self._positions.append(position)
                    if not row.isspace():  # empty lines at the end are no rows
                        self.count = number + 1
                hashed.finish()
        except OSError as exc:
            raise SourceError(f"{path}: {exc.strerror}") from exc
        except ShardError as exc:  # a folder, a pipe
            raise SourceError(str(exc)) from exc
        self.size, self.digest = hashed.size, hashed.hasher.hexdigest()

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Rows `[start, stop)`: number and bytes. Reading begins at most 1,023 rows before."""
        stop = min(stop, self.count)
        if start >= stop:
            return
        with self.path.open("rb") as file:
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

    def _walk(self, file: BinaryIO | _Hashed, position: int) -> Iterator[tuple[int, bytes]]:
        """Each row from `position` on, with its own position in bytes."""
        if self.is_array:
            yield from _elements(self.path, file, position)
            return
        while line := file.readline():
            yield position, line
            position += len(line)


class _Hashed:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.hasher, self.size = file, xxhash.xxh3_128(), 0

    def read(self, size: int) -> bytes:
        return self._seen(self._file.read(size))

    def readline(self) -> bytes:
        return self._seen(self._file.readline())

    def _seen(self, data: bytes) -> bytes:
        self.hasher.update(data)
        self.size += len(data)
        return data

    def finish(self) -> None:
        """Hash what the walk left unread."""
        while self.read(CHUNK_BYTES):
            pass


def _is_array(file: BinaryIO) -> bool:
    """Whether the file is one JSON array of records, and not lines.

    Lines may begin with `[` too: nanochat's bare lists of messages, whose first element has a role.
    """
    line = b"\n"
    while line and not line.strip():
        line = file.readline()
    line = line.removeprefix(b"\xef\xbb\xbf").strip()
    if not line.startswith(b"["):
        return False
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return True
    return bool(value) and isinstance(value[0], dict) and "role" not in value[0]


def _elements(path: Path, file: BinaryIO | _Hashed, position: int) -> Iterator[tuple[int, bytes]]:
    """The elements of an array, from its beginning or from the beginning of an element.

    `position` is that of the file in bytes. Raises SourceError where the array is broken: unlike a
    line, nothing after a broken element can be trusted.
    """
    decoder = json.JSONDecoder()
    buffer, ended, within = b"", False, position > 0
    while True:
        stripped = buffer.lstrip(b" \t\r\n," if within else b" \t\r\n\xef\xbb\xbf")
        position += len(buffer) - len(stripped)
        buffer = stripped
        if buffer and not within:
            buffer, position, within = buffer[1:], position + 1, True
            continue
        if buffer.startswith(b"]"):
            return
        try:
            text, _ = codecs.utf_8_decode(buffer, "strict", False)
            end = decoder.raw_decode(text)[1]
        except RecursionError as exc:
            raise SourceError(
                f"{path}: the element at byte {position:,} is nested too deeply"
            ) from exc
        except ValueError as exc:
            if ended:
                raise SourceError(f"{path}: no JSON array at byte {position:,}: {exc}") from exc
            end = None
        # A number or word that touches the end of what was read may go on in what follows.
        if end is None or (end == len(text) and not ended):
            more = file.read(max(CHUNK_BYTES, len(buffer)))
            ended, buffer = not more, buffer + more
            continue
        row = text[:end].encode()
        yield position, row
        buffer, position = buffer[len(row) :], position + len(row)
