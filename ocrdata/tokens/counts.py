"""Token counts of one shard: `NAME-000.tokens-<fingerprint>.parquet` (docs/formats.md).

A row per sample, its turns under the tokenizer with that fingerprint; a sample that cannot be
rendered (`ocrdata.tokens.rendering`) has no turns. Owner of the file: its columns, its name, and
that what is read is what was written, for the very index and tokenizer that are in use. It never
tokenizes; that is `ocrdata.planning.counting`.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ocrdata.errors import ShardError
from ocrdata.shards.arrow import (
    Int64,
    elements,
    explain_parquet,
    numbers,
    single,
    starts,
)
from ocrdata.shards.arrow import rows_digest as digest_of_rows
from ocrdata.shards.names import beside, shard_stem
from ocrdata.shards.parquet_limits import check_column_bytes, check_row_count, read_footer
from ocrdata.storage.cache import cached_path
from ocrdata.storage.file import exists, list_names, read_all
from ocrdata.storage.files import atomic_file
from ocrdata.storage.location import Location, LocationLike
from ocrdata.storage.sealed import FORMAT, VERSION, check_seal, check_version, parse_object, seal
from ocrdata.tokens.rendering import TurnCount

KIND = "tokens"
REMEDY = "delete it: it is made again from the shard on the next use"

Ints = npt.NDArray[np.int32]
_TURN = pa.struct(
    [pa.field(name, pa.int32(), nullable=False) for name in TurnCount._fields]  # their order too
)
SCHEMA = pa.schema(
    [pa.field("turns", pa.list_(pa.field("element", _TURN, nullable=False)), nullable=False)]
)


@dataclass(frozen=True)
class CountsHeader:
    """What the file's metadata says, readable without the rows. `index_rows_digest` is the
    `rows_digest` of the index whose samples were counted, `rows_digest` that of the counts."""

    fingerprint: str
    index_rows_digest: str
    samples: int
    rows_digest: str
    version: str = VERSION


@dataclass(frozen=True, eq=False)
class Counts:
    """Token counts of some samples in a row.

    Sample n has the turns `[turn_starts[n], turn_starts[n + 1])`; `turn_starts` is int64 [n + 1].
    `user`, `assistant` (tokens of text) and `images` (places in the user's message) are int32
    [turns].
    """

    turn_starts: Int64
    user: Ints
    assistant: Ints
    images: Ints

    def __len__(self) -> int:
        return len(self.turn_starts) - 1

    def turns(self, at: int) -> list[TurnCount]:
        """The turns of one sample."""
        mine = slice(*self.turn_starts[at : at + 2].tolist())
        columns = (self.user[mine], self.assistant[mine], self.images[mine])
        return [TurnCount(*map(int, turn)) for turn in zip(*columns, strict=True)]

    def take(self, samples: Sequence[int] | Int64) -> Counts:
        """The counts of these samples, in this order; a stretch of neighbours is not copied."""
        if isinstance(samples, range) and samples.step == 1 and samples:
            turn_starts = self.turn_starts[samples.start : samples.stop + 1]
            mine = slice(turn_starts[0], turn_starts[-1])
            turn_starts = turn_starts - turn_starts[0]
            return Counts(turn_starts, self.user[mine], self.assistant[mine], self.images[mine])
        rows = np.asarray(samples, np.int64)
        begins, sizes = self.turn_starts[rows], np.diff(self.turn_starts)[rows]
        turn_starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        # Turn t of the result is at t less its sample's beginning there, from that here on.
        at = np.arange(turn_starts[-1]) + np.repeat(begins - turn_starts[:-1], sizes)
        return Counts(turn_starts, self.user[at], self.assistant[at], self.images[at])


class CountsBuilder:
    """Gathers the counts of a shard, sample by sample, in the index's order."""

    def __init__(self) -> None:
        self._starts = array("q", [0])
        self._columns = (array("i"), array("i"), array("i"))

    def add(self, turns: Iterable[TurnCount]) -> None:
        """Append one sample."""
        for turn in turns:
            for column, number in zip(self._columns, turn, strict=True):
                column.append(number)
        self._starts.append(len(self._columns[0]))

    def finish(self) -> Counts:
        """All of them."""
        columns = (np.array(column, np.int32) for column in self._columns)
        return Counts(np.array(self._starts, np.int64), *columns)


def counts_suffix(fingerprint: str) -> str:
    """What the name of a counts file has in place of a shard's ending."""
    return f".{KIND}-{fingerprint}.parquet"


def counts_path(tar: LocationLike, fingerprint: str) -> Location:
    """Where the counts of a shard lie: NAME-000.tar -> NAME-000.tokens-<fingerprint>.parquet."""
    return beside(tar, counts_suffix(fingerprint))


def cached_counts_path(tar: LocationLike, fingerprint: str) -> Location:
    """The cache's name for the counts of a shard as it is now."""
    return cached_path(tar, counts_suffix(fingerprint))


def find_counts(tar: LocationLike, fingerprint: str) -> Location | None:
    """The counts file of a shard, beside it or in the cache; None where there is none."""
    here = counts_path(tar, fingerprint)
    if exists(here):
        return here
    cached = cached_counts_path(tar, fingerprint)
    return cached if exists(cached) else None


def all_counts(tar: LocationLike) -> Iterator[tuple[Location, str]]:
    """Every counts file beside a shard, with the fingerprint in its name."""
    shard = Location.of(tar)
    before, after = counts_suffix("*").split("*")
    start = shard_stem(shard.name) + before
    for name in list_names(shard.folder):
        if name.startswith(start) and name.endswith(after):
            yield shard.sibling(name), name.removeprefix(start).removesuffix(after)


def write_counts(path: LocationLike, counts: Counts, *, rows_digest: str, fingerprint: str) -> None:
    """Write counts, atomically; `rows_digest` is that of the index they belong to.

    The same counts give the same bytes for one pyarrow version.
    """
    table = _table(counts)
    header = CountsHeader(fingerprint, rows_digest, len(counts), digest_of_rows(table))
    document = seal({"format": FORMAT, "kind": KIND, **asdict(header)})
    table = table.replace_schema_metadata({FORMAT: json.dumps(document, sort_keys=True)})
    with atomic_file(Location.of(path).path) as file:
        pq.write_table(
            table, file, compression="zstd", use_dictionary=False, write_page_checksum=True
        )


def check_counts(path: LocationLike, *, rows_digest: str, fingerprint: str) -> CountsHeader:
    """What a counts file says of itself, from its footer alone.

    Raises ShardError where it is damaged, or belongs to another index or another tokenizer.
    """
    with _explain(path):
        header = _header(path, read_footer(path))
        _check_owner(path, header, rows_digest, fingerprint)
    return header


def read_counts(
    path: LocationLike, *, rows_digest: str, fingerprint: str, tar_size: int | None = None
) -> Counts:
    """Read and verify the counts that belong to the index with `rows_digest`, under the tokenizer
    with `fingerprint`. Raises ShardError where they do not, are damaged, or take more memory than
    those of a tar can, of `tar_size` bytes where that is known."""
    with _explain(path):
        # From one buffer, as an index is.
        data = read_all(path)
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            header = _header(path, file.metadata.metadata)
            _check_owner(path, header, rows_digest, fingerprint)
            if not file.schema_arrow.equals(SCHEMA):
                raise ShardError(str(path), "its columns are not those of token counts")
            check_row_count(str(path), file.metadata, header.samples)
            if tar_size is not None:
                check_column_bytes(str(path), data, tar_size)
            table = file.read(use_threads=False)
        if digest_of_rows(table) != header.rows_digest:
            raise ShardError(str(path), "the rows are not those its digest was made of")
        counts = _counts(table)
        columns = (counts.user, counts.assistant, counts.images)
        if len(counts) != header.samples or any(bool((column < 0).any()) for column in columns):
            raise ShardError(str(path), "the counts contradict themselves")
    return counts


def _counts(table: pa.Table) -> Counts:
    turns = single(table.column("turns"))
    inner = elements(turns)
    columns = [np.asarray(numbers(inner.field(name))) for name in TurnCount._fields]
    return Counts(np.asarray(starts(turns), np.int64), *columns)


def _table(counts: Counts) -> pa.Table:
    columns = [pa.array(column) for column in (counts.user, counts.assistant, counts.images)]
    inner = pa.StructArray.from_arrays(columns, fields=list(_TURN))
    kind = SCHEMA.field("turns").type
    turns = pa.ListArray.from_arrays(pa.array(counts.turn_starts, pa.int32()), inner, type=kind)
    return pa.table([turns], schema=SCHEMA)


def _header(path: LocationLike, metadata: dict[bytes, bytes] | None) -> CountsHeader:
    raw = (metadata or {}).get(FORMAT.encode())
    document = {} if raw is None else parse_object(str(path), raw)
    if document.get("kind") != KIND:
        raise ShardError(str(path), "not a file of token counts")
    check_version(str(path), document.get("version"))
    check_seal(str(path), document)
    return CountsHeader(**{name: document[name] for name in CountsHeader.__dataclass_fields__})


def _check_owner(
    path: LocationLike, header: CountsHeader, rows_digest: str, fingerprint: str
) -> None:
    if header.fingerprint != fingerprint:
        raise ShardError(
            str(path), f"counted with the tokenizer {header.fingerprint}, {fingerprint} is in use"
        )
    if header.index_rows_digest != rows_digest:
        raise ShardError(
            str(path), "counted for other samples: the shard or its index was made again since"
        )


@contextmanager
def _explain(path: LocationLike) -> Iterator[None]:
    """Every error of a damaged file is a ShardError that names it and says what to do."""
    try:
        with explain_parquet(path, "file of token counts", REMEDY):
            yield
    except ShardError as exc:
        raise type(exc)(exc.shard, exc.detail, remedy=exc.remedy or REMEDY) from exc
