"""The answers of an evaluation on disk: kept as they are given, gone on from after a stop.

Until all answers are there they are in `OUT.partial.jsonl`. Its first line says what they depend on
(checkpoint, samples, options); an evaluation of anything else does not go on from it. Then come
blocks of lines, each followed by a line with what is done after it and the digest of the block. A
block that a kill or a power failure tore, or that was changed, is asked again with all after it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ocrdata.errors import UsageError
from ocrdata.storage.files import atomic_file, discard, explain_disk
from ocrdata.storage.sealed import digest_of

Line = dict[str, Any]

LONGEST_HEADER = 1 << 24
"""Bytes; the first line of an unfinished file is far shorter, any other file need not be."""


def partial_path(out: Path) -> Path:
    """`answers.jsonl` -> `answers.partial.jsonl`."""
    return out.with_name(f"{out.stem}.partial.jsonl")


class AnswersFile:
    """The answers to be written to `out`; a context manager that closes the unfinished file.

    `identity` is what they depend on, as JSON values by name. `done` says how many samples of each
    source have been asked about, `validation` what `keep_validation` kept, None before it did.
    Raises UsageError if there are answers that depend on anything else.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        self.out, self.path = out, partial_path(out)
        self.done: dict[str, int] = {}
        self.validation: dict[str, Any] | None = None
        header = _encode({"evaluation": dict(identity)})
        with explain_disk(self.path):
            self._file = self.path.open("r+b" if self.path.exists() else "x+b")
            try:
                end = self._read(dict(identity))
                self._file.seek(end)
                self._file.truncate()
                if not end:
                    self._file.write(header)
            except BaseException:
                self._file.close()
                raise

    def __enter__(self) -> AnswersFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self._file.close()

    def keep_validation(self, validation: dict[str, Any]) -> None:
        """Keep the validation's results, as JSON values. Raises DiskError."""
        self.validation = validation
        self._keep([{"validation": validation}], {})

    def keep(self, source: str, samples: int, lines: Iterable[Line]) -> None:
        """Keep the answers after which `samples` of `source` are done. Raises DiskError."""
        self.done[source] = samples
        self._keep(lines, {source: samples})

    def finish(self) -> None:
        """Write all answers to `out`, completely or not at all. Raises DiskError."""
        with atomic_file(self.out) as file:
            file.writelines(map(_encode, self.answers()))

    def answers(self) -> Iterator[Line]:
        """All answers kept so far, in their order."""
        with explain_disk(self.path), self.path.open("rb") as file:
            file.readline()
            for value in map(json.loads, file):
                if not {"done", "validation"} & value.keys():
                    yield value

    def remove(self) -> None:
        """Remove the unfinished file, for when its content is complete elsewhere."""
        discard(self.path)

    def _keep(self, lines: Iterable[Line], done: Mapping[str, int]) -> None:
        block = b"".join(map(_encode, lines))
        with explain_disk(self.path):
            self._file.write(block + _encode({"done": done, "digest": digest_of(block)}))
            self._file.flush()
            os.fsync(self._file.fileno())

    def _read(self, identity: Mapping[str, Any]) -> int:
        """Read what is there; returns the position to go on from, 0 to begin anew."""
        first = self._file.readline(LONGEST_HEADER)
        value = _decode(first)
        foreign = first.endswith(b"\n") if value is None else "evaluation" not in value
        if foreign:
            raise UsageError(
                f"{self.path} exists but is not an unfinished answers file; name another --out"
            )
        end, block, validation = len(first), b"", None
        for line in self._file:
            found = _decode(line)
            if found is None:
                break
            if "done" not in found:
                validation = found.get("validation", validation)
                block += line
                continue
            if found.get("digest") != digest_of(block):
                break
            self.done |= found["done"]
            self.validation = validation
            end, block = end + len(block) + len(line), b""
        before = value["evaluation"] if value else {}
        changed = [name for name in identity if before.get(name) != identity[name]]
        if changed and self.done:
            shown = ", ".join(
                f"{name} {before.get(name)}, not {identity[name]}" for name in changed
            )
            raise UsageError(
                f"{self.path} has answers of an unfinished evaluation with {shown}: repeat that "
                "command to finish it, delete the file to drop it, or name another --out"
            )
        if changed:  # no answer of it would be lost
            self.validation, end = None, 0
        return end


def _encode(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _decode(line: bytes) -> dict[str, Any] | None:
    """The object of a complete line; None of any other."""
    try:
        value = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
