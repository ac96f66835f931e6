"""Builds an index: a row from a sample's members, and the index of a finished shard from its rows.

The writer and the pass over a finished tar (`ocrdata.reading.index_tar`) share it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from ocrdata.errors import ImageError
from ocrdata.images.decode import ImageInfo, read_header
from ocrdata.sample import is_trained
from ocrdata.shards.arrow import SCHEMA, rows_digest
from ocrdata.shards.index import Index, IndexHeader, IndexMember, IndexRow
from ocrdata.shards.members import fields_of, follows_our_layout, is_blank, roles
from ocrdata.shards.output import Written
from ocrdata.shards.tar import TarMember
from ocrdata.storage.sealed import (
    COMPRESSED_VERSION,
    FOREIGN_VERSION,
    VERSION,
    WEIGHTED_VERSION,
)

UNKNOWN_IMAGE = ImageInfo("", 0, 0)
"""The index entry of a member that is named like an image but cannot be read as one."""


class LoadedMember(NamedTuple):
    """A member, its digest, and its payload if its row needs that, else b""."""

    member: TarMember
    digest: bytes
    data: bytes


class IndexBuilder:
    """Gathers the rows of an index, sample by sample, in the tar's order."""

    def __init__(self) -> None:
        self._rows: list[IndexRow] = []
        self._weighted = False

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: IndexRow, document: bytes = b"") -> None:
        """Append one sample; `document` is its JSON member, if it has one."""
        self._rows.append(row)
        self._weighted = self._weighted or has_untrained(document)

    def finish(self, written: Written) -> Index:
        """The index of the finished shard."""
        rows = self._rows
        # Flat columns, Arrow's own layout: four times as fast as rows of dicts.
        columns = [
            [row.key for row in rows],
            [row.offset for row in rows],
            [row.size for row in rows],
            _lists([row.members for row in rows], SCHEMA.field("members").type),
            _lists([row.images for row in rows], SCHEMA.field("images").type),
            [row.turns for row in rows],
            [row.source for row in rows],
        ]
        table = pa.table(columns, schema=SCHEMA)
        header = IndexHeader(
            shard_size=written.size,
            shard_digest=written.digest,
            samples=len(self),
            rows_digest=rows_digest(table),
            version=self._version(written),
            frames=written.frames,
        )
        return Index(table, header)

    def _version(self, written: Written) -> str:
        """The version of the rules that made the rows; our own layout needs the first ones only,
        so that the index of a set that exists is made again with the same bytes."""
        if self._weighted:
            return WEIGHTED_VERSION
        ours = all(follows_our_layout(row.key, [m.name for m in row.members]) for row in self._rows)
        if not ours:
            return FOREIGN_VERSION
        return COMPRESSED_VERSION if written.frames else VERSION


def _lists(rows: Sequence[Sequence[tuple[Any, ...]]], kind: pa.ListType) -> pa.ListArray:
    """A column of lists of structs; each struct is a tuple of its fields in order."""
    fields = list(kind.value_type)
    flat = [entry for row in rows for entry in row]
    columns = zip(*flat, strict=True) if flat else ((),) * len(fields)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, fields, strict=True)]
    inner = pa.StructArray.from_arrays(arrays, fields=fields)
    starts = pa.array(itertools.accumulate(map(len, rows), initial=0), pa.int32())
    return pa.ListArray.from_arrays(starts, inner, type=kind)


def has_untrained(document: bytes) -> bool:
    """Whether an answer in a sample's JSON has weight 0."""
    if b'"weight"' not in document:  # nearly always, and then there is nothing to parse
        return False
    messages = _object(document).get("messages")
    return isinstance(messages, list) and any(
        isinstance(message, dict) and message.get("role") == "assistant" and not is_trained(message)
        for message in messages
    )


def document_of(members: Sequence[LoadedMember]) -> bytes:
    """The JSON member of a sample; b"" without any."""
    at = roles(fields_of(loaded.member.name for loaded in members)).json
    return b"" if at is None else members[at].data


def make_row(key: str, members: list[LoadedMember]) -> IndexRow:
    """The index row of one sample's members."""
    found = roles(fields_of(loaded.member.name for loaded in members))
    images = tuple(_image_info(members[at].data) for at in found.images)
    turns, source = _turns_and_source(
        b"" if found.json is None else members[found.json].data,
        b"" if found.caption is None or not images else members[found.caption].data,
    )
    start = members[0].member.start
    return IndexRow(
        key=key,
        offset=start,
        size=members[-1].member.end - start,
        members=tuple(
            IndexMember(m.member.name, m.member.offset, m.member.size, m.digest) for m in members
        ),
        images=images,
        turns=0 if found.problem else turns,
        source=source,
    )


def _image_info(data: bytes) -> ImageInfo:
    try:
        return read_header(data)
    except ImageError:
        return UNKNOWN_IMAGE


def _turns_and_source(document: bytes, caption: bytes) -> tuple[int, str]:
    """Turns and source of a sample with these members; one that is missing is empty. `caption` is
    that of an image."""
    value = _object(document)
    named, messages = value.get("source"), value.get("messages")
    source = named if isinstance(named, str) and _is_utf8(named) else ""
    if isinstance(messages, list):
        speakers = [m.get("role") for m in messages if isinstance(m, dict)]
        return speakers.count("assistant"), source
    return int(not is_blank(caption)), source


def _object(document: bytes) -> dict[str, Any]:
    """The object in a JSON document; {} if there is none."""
    try:
        value = json.loads(document)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_utf8(text: str) -> bool:
    """False for a lone surrogate, which JSON can express and Parquet cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
