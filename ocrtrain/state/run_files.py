"""Files of a run folder: JSON lines, and JSON documents with a digest.

A line is one JSON object with an integer `step`. An incomplete last line (killed process) is
ignored: the run did not act on it. Any other malformed line was corrupted after it was written, and
is an error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ocrdata.errors import ShardError, TrainError
from ocrdata.storage.files import atomic_file, explain_disk, write_json
from ocrdata.storage.sealed import check_seal, parse_object, seal

Line = dict[str, Any]


def parse_line(line: bytes) -> Line | None:
    """The object in `line`; None unless it ends with a newline and has an integer `step`."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    valid = isinstance(value, dict) and type(value.get("step")) is int and line.endswith(b"\n")
    return value if valid else None


class LineWriter:
    """Appends JSON lines to a file and flushes each. Raises DiskError where it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with explain_disk(path):
            self._file = path.open("a", encoding="utf-8")

    def write(self, line: Line) -> None:
        """Append an object. Raises DiskError."""
        with explain_disk(self._path):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def sync(self) -> None:
        """Fsync the lines written so far. Raises DiskError."""
        with explain_disk(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file. An OSError is ignored: `write` has reported it, and a second one from
        here would hide the first."""
        with suppress(OSError):
            self._file.close()


def read_lines(path: Path) -> Iterator[Line]:
    """Every line of a file. An incomplete last one is ignored.

    Raises TrainError with the number of a corrupted line, DiskError where the file cannot be read.
    """
    with explain_disk(path), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            value = parse_line(line)
            if value is not None:
                yield value
            elif line.endswith(b"\n"):
                raise _corrupted(path, number)


def cut_lines(path: Path, keep: Callable[[Line], bool]) -> None:
    """Rewrite a file with only the lines for which `keep` is true. A missing file stays missing.

    Raises TrainError where a corrupted line precedes one to keep. After the last line that was
    fsynced, a power failure may leave anything; such lines are dropped.
    """
    if not path.exists():
        return
    kept, corrupted = [], 0
    with explain_disk(path), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            value = parse_line(line)
            if value is None:
                corrupted = corrupted or number
            elif keep(value):
                if corrupted:
                    raise _corrupted(path, corrupted)
                kept.append(line)
    with atomic_file(path) as file:
        file.writelines(kept)


def _corrupted(path: Path, number: int) -> TrainError:
    return TrainError(
        f"{path}: line {number} is corrupted; restore the original file, or delete the line to "
        "continue without it"
    )


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write an object with its digest, atomically. Raises DiskError."""
    write_json(path, seal(value))


def read_sealed(path: Path) -> dict[str, Any]:
    """The object in a file that `write_sealed` wrote, without its digest.

    Raises TrainError where the file is missing, malformed or was changed; DiskError where it cannot
    be read.
    """
    try:
        with explain_disk(path):
            data = path.read_bytes()
        value = parse_object(str(path), data)
        check_seal(str(path), value)
    except FileNotFoundError as exc:
        raise TrainError(f"{path}: the file is missing") from exc
    except ShardError as exc:
        raise TrainError(
            f"{path}: cannot be read: {exc.detail}; restore the original (every checkpoint has a "
            "copy of the config), or start a new run"
        ) from exc
    del value["digest"]
    return value
