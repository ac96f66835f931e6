"""Files of a run folder: JSON objects line by line, and sealed JSON documents.

An incomplete last line (killed process) is ignored: nothing was done on its account. Any other line
that cannot be parsed was damaged after it was written, and is an error.
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
    """The object in one line with its newline and an integer `step`; None for anything else."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    good = isinstance(value, dict) and type(value.get("step")) is int and line.endswith(b"\n")
    return value if good else None


class LineWriter:
    """Appends to a file, each line flushed when it is written."""

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
        """Make the lines so far durable."""
        with explain_disk(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """End the file. What a full disk did not take was reported when it was written, and is not
        reported again in place of that."""
        with suppress(OSError):
            self._file.close()


def read_lines(path: Path) -> Iterator[Line]:
    """Every line of a file, up to a torn end. Raises TrainError naming a damaged one."""
    with explain_disk(path), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            value = parse_line(line)
            if value is not None:
                yield value
            elif line.endswith(b"\n"):
                raise _damaged(path, number)


def cut_lines(path: Path, keep: Callable[[Line], bool]) -> None:
    """Keep the lines that `keep` wants; a file that is not there stays so.

    Raises TrainError where a line is damaged that stands before one to be kept: what follows the
    last line that was made durable may be anything after a power cut, what stands before may not.
    """
    if not path.exists():
        return
    kept, damaged = [], 0
    with explain_disk(path), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            value = parse_line(line)
            if value is None:
                damaged = damaged or number
            elif keep(value):
                if damaged:
                    raise _damaged(path, damaged)
                kept.append(line)
    with atomic_file(path) as file:
        file.writelines(kept)


def _damaged(path: Path, number: int) -> TrainError:
    return TrainError(
        f"{path}: line {number} was damaged after it was written; put the original back, or remove "
        "the line to go on without it"
    )


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write an object with its digest, atomically."""
    write_json(path, seal(value))


def read_sealed(path: Path) -> dict[str, Any]:
    """The object in a file of the run, without its digest. Raises TrainError where it cannot be
    read or was changed."""
    try:
        with explain_disk(path):
            data = path.read_bytes()
        value = parse_object(str(path), data)
        check_seal(str(path), value)
    except FileNotFoundError as exc:
        raise TrainError(f"{path}: the file is missing") from exc
    except ShardError as exc:
        raise TrainError(
            f"{path}: cannot be read: {exc.detail}; put the original back (every checkpoint has a "
            "copy of the config), or start a new run"
        ) from exc
    del value["digest"]
    return value
