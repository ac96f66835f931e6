"""Conversations in a JSON Lines file or a JSON array, with images in a folder.

A row is a line, or an element of the array. `RecordFormat` lists the schemas that are read;
`ocrdata.sources.json_rows` numbers the rows.
"""

from __future__ import annotations

import base64
import binascii
import errno
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import xxhash

from ocrdata.errors import RejectedRow, ShardError, SourceError, UsageError
from ocrdata.sample import IMAGE_PART, Message, Part, Sample, from_turns, image_parts, text_part
from ocrdata.sample import split_placeholders as split
from ocrdata.sources.base import ROW_BYTES, attempt, safe_name
from ocrdata.sources.json_rows import RowFile
from ocrdata.storage.files import can_be_a_path, is_file, read_file

PLACEHOLDER = "<image>"
SIZED_ROWS = 32
"""Rows whose images are measured to estimate the size of all."""

_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}


class JsonlSource:
    """The rows of one file. Raises UsageError if the file or the image folder is missing."""

    def __init__(self, path: Path, images: Path | None) -> None:
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
        folder = path.parent if images is None else images
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder (--images)")
        self.name = safe_name(path.stem)
        self._file = RowFile(path)
        self._form = RecordFormat(folder, self.name)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The file by its name and content, not its folder; the images by their names and sizes."""
        return {
            "format": "jsonl",
            "file": self._file.path.name,
            "bytes": self._file.size,
            "xxh3_128": self._file.digest,
            "images_xxh3_128": self._images_digest,
            "licence": "unknown",
        }

    @cached_property
    def _images_digest(self) -> str:
        """A digest of the names and sizes of the images: another folder with images of the same
        names is another data set."""
        digest = xxhash.xxh3_128()
        for _, line in self._file.rows(0, self._file.count):
            for name in image_names(line):
                file = self._form.find(PurePosixPath(name))
                size = file.stat().st_size if is_file(file) else -1
                digest.update(f"{name}\0{size}\n".encode())
        return digest.hexdigest()

    def count(self) -> int:
        """Number of lines, or of elements of the array."""
        return self._file.count

    def size(self, start: int, stop: int) -> int:
        """Estimated bytes in shards: the text, and images as large as those of a few rows."""
        step = max(1, (stop - start) // SIZED_ROWS)
        seen = [
            sum(map(len, result.images))
            for first in range(start, stop, step)
            for _, result in self.rows(first, first + 1)
            if isinstance(result, Sample)
        ]
        images = sum(seen) / len(seen) if seen else 0
        text = self._file.size / self.count()
        return round((images + text + ROW_BYTES) * (stop - start))

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        """Rows `[start, stop)`; a line of invalid JSON is a rejected row."""
        return attempt(self._file.rows(start, stop), self._form)


@dataclass(frozen=True)
class RecordFormat:
    """Converts a record to a sample. A record is one of

    - `{"texts": [{"user": ..., "assistant": ...}], "image": NAME}`, the schema of `charts.jsonl`,
    - `{"messages": [{"role": ..., "content": TEXT or PARTS}]}`, OpenAI's schema; parts are
      `{"type": "text", "text": ...}`, `{"type": "image"}` (the next of the record's images),
      `{"type": "image", "image": NAME}`, `{"type": "image_url", "image_url": {"url": NAME}}`,
    - `[{"role": ..., "content": ...}]`, nanochat's bare list,
    - `{"prompt": ..., "answer": ..., "image": NAME}`.

    `image` and `images` are a name or a list of names in the folder, or `data:` URLs. With such a
    field, `<image>` in the user texts is the place of an image; if no text has one, all images come
    before the first question. Without such a field `<image>` is plain text. Fields that the schema
    does not use go to `meta`.
    """

    folder: Path
    origin: str

    def __call__(self, line: bytes) -> Sample:
        """Raises RejectedRow."""
        try:
            record = json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError) as exc:
            raise RejectedRow(f"invalid JSON: {exc}"[:200]) from exc
        if isinstance(record, list):
            record = {"messages": record}
        if not isinstance(record, dict):
            raise RejectedRow("the record is not a JSON object")
        names = _names(record)
        source = record.get("source")
        source = source if isinstance(source, str) and source else self.origin
        schemas = ({"messages"}, {"texts"}, {"prompt", "answer"})
        used = next((fields for fields in schemas if fields <= record.keys()), None)
        if used is None:
            raise RejectedRow("the record has neither messages, nor texts, nor prompt and answer")
        meta = {key: value for key, value in record.items() if key not in used | {"source"}}
        if "messages" in used:
            messages, names = _messages(record["messages"], names)
            return Sample(messages, self._images(names), source, meta)
        turns = _turns(record)
        placeholder = PLACEHOLDER if names else ""
        return from_turns(
            turns, self._images(names), source=source, meta=meta, placeholder=placeholder
        )

    def _images(self, names: list[str]) -> list[bytes]:
        return [self._image(number, name) for number, name in enumerate(names)]

    def find(self, path: PurePosixPath) -> Path:
        """The file of a name `images/a.png`, if the folder is the parent of `images` or
        `images`."""
        file = self.folder / path
        if not is_file(file) and path.parts[:1] == (self.folder.absolute().name,):
            file = self.folder / PurePosixPath(*path.parts[1:])
        return file

    def _image(self, number: int, name: str) -> bytes:
        if name.startswith("data:"):
            return _data_url(number, name)
        if "://" in name:
            raise RejectedRow(f"image {number}: {name[:80]} is a URL; download it into the folder")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise RejectedRow(f"image {number}: {name[:80]} is outside the image folder")
        if not can_be_a_path(name):
            raise RejectedRow(f"image {number}: {name[:80]!r}: invalid file name")
        file = self.find(path)
        try:
            return read_file(file)
        except ShardError as exc:  # a folder, a pipe
            raise RejectedRow(f"image {number}: {name[:80]}: not a regular file") from exc
        except OSError as exc:
            if exc.errno in _NO_FILE:
                raise RejectedRow(f"image {number}: {name[:80]}: no such file") from exc
            raise SourceError(f"{file}: {exc.strerror}") from exc


def image_names(line: bytes) -> list[str]:
    """The names of a record's image files; [] if the record is invalid."""
    try:
        record = json.loads(line)
        if isinstance(record, list):
            record = {"messages": record}
        if not isinstance(record, dict):
            return []
        names = _names(record)
        if "messages" in record:
            names = _messages(record["messages"], names)[1]
    except (ValueError, RecursionError, RejectedRow):
        return []
    return [name for name in names if not name.startswith("data:") and "://" not in name]


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not valid JSON")


def _data_url(number: int, url: str) -> bytes:
    head, comma, body = url.partition(",")
    try:
        if not comma or not head.endswith(";base64"):
            raise ValueError("not base64")
        return base64.b64decode(body, validate=True)
    except (ValueError, binascii.Error) as exc:
        raise RejectedRow(f"image {number}: invalid data URL: {exc}") from exc


def _names(record: dict[str, Any]) -> list[str]:
    """The image names in the record's `image` and `images`."""
    names: list[str] = []
    for key in ("image", "images"):
        value = record.get(key)
        values = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(name, str) and name for name in values):
            raise RejectedRow(f"{key} is neither a name nor a list of names")
        names += values
    return names


def _turns(record: dict[str, Any]) -> list[tuple[str, str]]:
    pairs = record.get("texts", [{"user": record.get("prompt"), "assistant": record.get("answer")}])
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        raise RejectedRow("texts is not a list of turns")
    turns = [(pair.get("user"), pair.get("assistant")) for pair in pairs]
    for number, turn in enumerate(turns):
        if not all(text is None or isinstance(text, str) for text in turn):
            raise RejectedRow(f"turn {number}: text is not a string")
    return [(user or "", assistant or "") for user, assistant in turns]


def _messages(value: Any, names: list[str]) -> tuple[list[Message], list[str]]:
    """Messages as a `Sample` has them, and image names in the order of their parts."""
    if not isinstance(value, list):
        raise RejectedRow("messages is not a list")
    placed = bool(names) and any(
        isinstance(message, dict)
        and message.get("role") == "user"
        and isinstance(message.get("content"), str)
        and PLACEHOLDER in message["content"]
        for message in value
    )
    messages: list[Message] = []
    order: list[str] = []
    own = iter(names)
    for number, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise RejectedRow(f"message {number}: no role")
        content, role = message.get("content"), message["role"]
        if isinstance(content, str):
            mark = PLACEHOLDER if placed and role == "user" else ""
            parts = split(content, mark) if mark else [text_part(content)]
            order += [next(own, "") for part in parts if part == IMAGE_PART]
        elif isinstance(content, list):
            parts = [_part(number, part, own, order) for part in content]
        else:
            raise RejectedRow(f"message {number}: no content")
        messages.append({"role": role, "content": parts})
    _check_all_placed(image_parts(messages), len(names), order)
    if names and not order:
        first = next((message for message in messages if message["role"] == "user"), None)
        if first is not None:
            first["content"] = [*(dict(IMAGE_PART) for _ in names), *first["content"]]
        order = names
    return messages, order


def _check_all_placed(placed: int, held: int, order: list[str]) -> None:
    if placed and ("" in order or (held and placed < held)):
        raise RejectedRow(f"{placed} image parts in the messages, but {held} images")


def _part(number: int, part: Any, own: Iterator[str], order: list[str]) -> Part:
    """One content part; the name of an image part is appended to `order`."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return text_part(part["text"])
    if kind not in ("image", "image_url"):
        raise RejectedRow(f"message {number}: a content part is neither text nor image")
    name = part.get("image", part.get("image_url"))
    name = name.get("url") if isinstance(name, dict) else name
    if name is None:
        name = next(own, "")
    if not isinstance(name, str):
        raise RejectedRow(f"message {number}: an image part has no name")
    order.append(name)
    return dict(IMAGE_PART)
