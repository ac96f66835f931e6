"""Conversations in a JSON Lines file or JSON arrays, with images in a folder.

A row is a line, or an element of an array. `RecordFormat` lists the schemas that are read;
`ocrdata.sources.json_rows` numbers the rows, `ocrdata.sources.conversations` reads the messages,
`ocrdata.sources.image_files` the images.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ocrdata.errors import RejectedRow, UsageError
from ocrdata.sample import Sample
from ocrdata.sources.base import ROW_BYTES, attempt, few_rows, mean_bytes, safe_name
from ocrdata.sources.conversations import (
    MESSAGE_FIELDS,
    Conversation,
    Image,
    read_messages,
    record_images,
    source_name,
)
from ocrdata.sources.image_files import ImageFolder, digest_of_files, is_data_url
from ocrdata.sources.json_rows import RowFile

SYSTEM = "system"
"""A field of a record that holds the system message of its conversation."""

SCHEMAS = (("messages",), ("conversations",), ("texts",), ("prompt", "answer"))
"""The fields that hold the conversation of a record. The first that it has are used."""


class JsonlSource:
    """The rows of one file. Raises UsageError if it has none, or a path is not what it must be,
    and SourceError if the file cannot be read."""

    content = ("file", "bytes", "xxh3_128", "images_xxh3_128")

    def __init__(self, path: Path, images: Path | None) -> None:
        if path.is_dir():
            raise UsageError(f"{path} is a folder; --path takes one file{_examples(path)}")
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
        folder = path.parent if images is None else images
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder (--images)")
        self.name = set_name(path)
        self._file = RowFile(path)
        if not self._file.count:
            raise UsageError(
                f"{path}: has no records ({self._file.size:,} bytes); it must hold a JSON object a "
                "line, or an array of them"
            )
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
        lines = self._file.rows(0, self._file.count)
        return digest_of_files(found for _, line in lines for found in self._form.files(line))

    def count(self) -> int:
        """Number of lines, or of elements of the array."""
        return self._file.count

    def size(self, start: int, stop: int) -> int:
        """Estimated bytes in shards: the text, and images as large as those of a few rows."""
        few = attempt(self._file.some(few_rows(start, stop)), self._form)
        images = mean_bytes(result for _, result in few)
        text = self._file.text_size / self.count()
        return round((images + text + ROW_BYTES) * (stop - start))

    def files(self, start: int, stop: int) -> Iterator[Path]:
        """The images of rows `[start, stop)`."""
        for _, line in self._file.rows(start, stop):
            for _, file in self._form.files(line):
                yield file

    def rows(self, start: int, stop: int) -> Iterator[tuple[int, Sample | RejectedRow]]:
        """Rows `[start, stop)`; a line of invalid JSON is a rejected row."""
        return attempt(self._file.rows(start, stop), self._form)


def set_name(path: Path) -> str:
    """The name of the shards of a file: my.data.jsonl.gz -> my-data."""
    return safe_name(re.sub(r"\.(gz|zst)$", "", path.name, flags=re.I).rpartition(".")[0])


def _examples(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if ".json" in path.name)
    return f", such as {names[0]}" if names else " of JSON Lines, or a JSON array"


@dataclass(frozen=True)
class RecordFormat:
    """Converts a record to a sample. A record is one of

    - `{"messages": [{"role": ..., "content": TEXT or PARTS}]}`, OpenAI's schema, or a bare list of
      such messages, nanochat's,
    - `{"conversations": [{"from": ..., "value": ...}]}`, the schema of LLaVA and ShareGPT,
    - `{"texts": [{"user": ..., "assistant": ...}]}`, the schema of `charts.jsonl`,
    - `{"prompt": ..., "answer": ...}`.

    Its images are in one of `conversations.IMAGE_FIELDS` (a name in the folder, a `data:` URL, or a
    list of them) or in the image parts of the messages. `<image>` in the text of a user is the
    place of the record's next image; if no text has one, all images come before the first question.
    Fields that the schema does not use go to `meta`; NaN and infinities become null there.
    """

    folder: Path
    origin: str

    def __call__(self, line: bytes) -> Sample:
        """Raises RejectedRow."""
        record = parse_record(line)
        used, conversation = read_record(record)
        return make_sample(record, used, conversation, ImageFolder(self.folder).read, self.origin)

    def files(self, line: bytes) -> Iterator[tuple[str, Path]]:
        """Name and path of each image file of a record; none if the record is invalid."""
        try:
            images = read_record(parse_record(line))[1].images
        except RejectedRow:
            return
        folder = ImageFolder(self.folder)
        for name in images:
            if isinstance(name, str) and not is_data_url(name):
                try:
                    yield name, folder.find(name)
                except RejectedRow:
                    continue


def parse_record(line: bytes) -> dict[str, Any]:
    """The record in a line. Raises RejectedRow."""
    try:
        record = json.loads(line, parse_constant=lambda _: None, parse_float=_finite)
    except (ValueError, RecursionError) as exc:
        raise RejectedRow(f"invalid JSON: {exc}"[:200]) from exc
    if isinstance(record, list):
        record = {"messages": record}
    if not isinstance(record, dict):
        raise RejectedRow("the record is not a JSON object")
    return record


def make_sample(
    record: Mapping[str, Any],
    used: Sequence[str],
    conversation: Conversation,
    read: Callable[[Image], bytes],
    origin: str,
) -> Sample:
    """The sample of a record: what was not used goes to `meta`. `read` gives the bytes of an image,
    `origin` is the source if the record names none. Raises RejectedRow."""
    source = source_name(record.get("source"))
    meta = {
        key: value
        for key, value in record.items()
        if key not in used and not (key == "source" and (source or value in ("", None)))
    }
    if conversation.fields:
        meta[MESSAGE_FIELDS] = conversation.fields
    images = []
    for number, image in enumerate(conversation.images):
        try:
            images.append(read(image))
        except RejectedRow as exc:
            raise RejectedRow(f"image {number}: {exc}") from exc
    return Sample(conversation.messages, images, source or origin, meta)


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def read_record(
    record: Mapping[str, Any], images: Sequence[Image] | None = None
) -> tuple[tuple[str, ...], Conversation]:
    """The fields of the record that were used, and the conversation in them; `images` are those in
    the record's own fields unless given. Raises RejectedRow."""
    for used in SCHEMAS:
        if all(name in record for name in used) and any(record[name] is not None for name in used):
            break
    else:
        raise RejectedRow(
            "the record has neither messages, conversations, texts, nor prompt and answer; its "
            f"fields are {', '.join(record) or 'none'}"[:300]
        )
    messages = record[used[0]]
    if used == ("texts",):
        messages = _turns(record["texts"])
    elif len(used) > 1:
        messages = _turns([{"user": record["prompt"], "assistant": record["answer"]}])
    if _has_system_prompt(record, messages):
        messages = [{"role": "system", "content": record[SYSTEM]}, *messages]
        used = (*used, SYSTEM)
    return used, read_messages(messages, record_images(record) if images is None else images)


def _has_system_prompt(record: Mapping[str, Any], messages: Any) -> bool:
    """Whether a field of the record, as LLaMA-Factory has it, is the system message that its
    conversation lacks."""
    prompt = record.get(SYSTEM)
    if not (isinstance(prompt, str) and prompt.strip() and isinstance(messages, list)):
        return False
    first = messages[0] if messages else None
    return not (isinstance(first, dict) and "system" in (first.get("role"), first.get("from")))


def _turns(pairs: Any) -> list[dict[str, Any]]:
    """Pairs of question and answer as messages; other fields of a pair are the answer's."""
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        raise RejectedRow("texts is not a list of turns")
    messages = []
    for number, pair in enumerate(pairs):
        user, assistant = (pair.get(name) for name in ("user", "assistant"))
        if not all(text is None or isinstance(text, str) for text in (user, assistant)):
            raise RejectedRow(f"turn {number}: text is not a string")
        others = {key: value for key, value in pair.items() if key not in ("user", "assistant")}
        messages.append({"role": "user", "content": user or ""})
        messages.append({**others, "role": "assistant", "content": assistant or ""})
    return messages
