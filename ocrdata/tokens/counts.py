"""Token counts of one shard: `NAME-000.tokens-<fingerprint>.parquet` (docs/formats.md).

One row per sample, with the lengths of its turns under the tokenizer with that fingerprint; a
sample that cannot be rendered (`ocrdata.tokens.rendering`), or was damaged when the shard was
counted, has no turns. Reads and writes the file,
and checks that it is intact and belongs to the index and tokenizer in use. Tokenizing is left to
`ocrdata.planning.counting`.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

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
from ocrdata.storage.sealed import (
    FORMAT,
    VERSION,
    check_seal,
    check_version,
    is_count,
    parse_object,
    seal,
)
from ocrdata.tokens.rendering import TurnCount

KIND = "tokens"
VERSION_WITH_DAMAGE = "1.1"
"""Version of a file that names damaged samples; all others have VERSION."""

REMEDY = "delete it; it is recreated from the shard on the next use"

Ints = npt.NDArray[np.int32]
_TURN = pa.struct(
    [pa.field(name, pa.int32(), nullable=False) for name in TurnCount._fields]  # in this order
)
SCHEMA = pa.schema(
    [pa.field("turns", pa.list_(pa.field("element", _TURN, nullable=False)), nullable=False)]
)


@dataclass(frozen=True)
class CountsHeader:
    """The metadata of a counts file, readable without its rows. `index_rows_digest` is the
    `rows_digest` of the index whose samples were counted; `rows_digest` is that of the counts;
    `damaged` are the positions of samples whose bytes were damaged."""

    fingerprint: str
    index_rows_digest: str
    samples: int
    rows_digest: str
    version: str = VERSION
    damaged: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Counts:
    """Token counts of consecutive samples.

    Sample i has the turns `[turn_starts[i], turn_starts[i + 1])`; `turn_starts` is int64
    [samples + 1]. `user` and `assistant` (text tokens) and `images` (image parts in the user
    message) are int32 [turns], as in `TurnCount`. `damaged` are the samples whose bytes were
    damaged when they were counted, which have no turns; only known of a whole shard.
    """

    turn_starts: Int64
    user: Ints
    assistant: Ints
    images: Ints
    damaged: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.turn_starts) - 1

    def turns(self, at: int) -> list[TurnCount]:
        """The turns of one sample."""
        part = slice(*self.turn_starts[at : at + 2].tolist())
        columns = (self.user[part], self.assistant[part], self.images[part])
        return [TurnCount(*map(int, turn)) for turn in zip(*columns, strict=True)]

    def take(self, samples: Sequence[int] | Int64) -> Counts:
        """The counts of these samples, in this order. A range with step 1 copies no counts."""
        if isinstance(samples, range) and samples.step == 1 and samples:
            turn_starts = self.turn_starts[samples.start : samples.stop + 1]
            part = slice(turn_starts[0], turn_starts[-1])
            turn_starts = turn_starts - turn_starts[0]
            return Counts(turn_starts, self.user[part], self.assistant[part], self.images[part])
        rows = np.asarray(samples, np.int64)
        begins, sizes = self.turn_starts[rows], np.diff(self.turn_starts)[rows]
        turn_starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        # Turn t of the result is turn t - (its sample's start in the result) + (its start in self).
        at = np.arange(turn_starts[-1]) + np.repeat(begins - turn_starts[:-1], sizes)
        return Counts(turn_starts, self.user[at], self.assistant[at], self.images[at])


class CountsBuilder:
    """Collects the counts of a shard, sample by sample, in the order of the index."""

    def __init__(self) -> None:
        self._starts = array("q", [0])
        self._columns = (array("i"), array("i"), array("i"))
        self._damaged: list[int] = []

    def add(self, turns: Iterable[TurnCount]) -> None:
        """Append one sample."""
        for turn in turns:
            for column, number in zip(self._columns, turn, strict=True):
                column.append(number)
        self._starts.append(len(self._columns[0]))

    def add_damaged(self) -> None:
        """Append a sample whose bytes are damaged."""
        self._damaged.append(len(self._starts) - 1)
        self.add([])

    def finish(self) -> Counts:
        """The counts of all samples added."""
        user, assistant, images = (np.array(column, np.int32) for column in self._columns)
        starts_ = np.array(self._starts, np.int64)
        return Counts(starts_, user, assistant, images, tuple(self._damaged))


def counts_suffix(fingerprint: str) -> str:
    """The suffix of a counts file, which replaces the shard's .tar or .tar.zst."""
    return f".{KIND}-{fingerprint}.parquet"


def counts_path(tar: LocationLike, fingerprint: str) -> Location:
    """The counts file beside a shard: NAME-000.tar -> NAME-000.tokens-<fingerprint>.parquet."""
    return beside(tar, counts_suffix(fingerprint))


def cached_counts_path(tar: LocationLike, fingerprint: str) -> Location:
    """Where the cache keeps the counts of a shard with its present size and time."""
    return cached_path(tar, counts_suffix(fingerprint))


def find_counts(tar: LocationLike, fingerprint: str) -> Location | None:
    """The counts file of a local shard, beside it or in the cache; None if there is none."""
    beside_shard = counts_path(tar, fingerprint)
    if exists(beside_shard):
        return beside_shard
    cached = cached_counts_path(tar, fingerprint)
    return cached if exists(cached) else None


def all_counts(tar: LocationLike) -> Iterator[tuple[Location, str]]:
    """Every counts file beside a shard, with the fingerprint in its name."""
    shard = Location.of(tar)
    start, end = (shard_stem(shard.name) + counts_suffix("*")).rsplit("*", 1)
    for name in list_names(shard.folder):
        if name.startswith(start) and name.endswith(end):
            yield shard.sibling(name), name.removeprefix(start).removesuffix(end)


def write_counts(path: LocationLike, counts: Counts, *, rows_digest: str, fingerprint: str) -> None:
    """Write counts atomically; `rows_digest` is that of the index they belong to."""
    data = encode_counts(counts, rows_digest=rows_digest, fingerprint=fingerprint)
    with atomic_file(Location.of(path).path) as file:
        file.write(data)


def encode_counts(counts: Counts, *, rows_digest: str, fingerprint: str) -> bytes:
    """The bytes of a counts file. The same counts give the same bytes for one pyarrow version."""
    table = _table(counts)
    header = asdict(CountsHeader(fingerprint, rows_digest, len(counts), digest_of_rows(table)))
    if counts.damaged:
        header |= {"version": VERSION_WITH_DAMAGE, "damaged": list(counts.damaged)}
    else:
        del header["damaged"]
    document = seal({"format": FORMAT, "kind": KIND, **header})
    table = table.replace_schema_metadata({FORMAT: json.dumps(document, sort_keys=True)})
    output = pa.BufferOutputStream()
    pq.write_table(
        table, output, compression="zstd", use_dictionary=False, write_page_checksum=True
    )
    return output.getvalue().to_pybytes()  # type: ignore[no-any-return]  # pyarrow has no types


def check_counts(path: LocationLike, *, rows_digest: str, fingerprint: str) -> CountsHeader:
    """Read the metadata of a counts file from its footer alone.

    Raises ShardError if it is corrupted, or belongs to another index or tokenizer.
    """
    with _explain(path):
        header = _header(path, read_footer(path))
        _check_owner(path, header, rows_digest, fingerprint)
    return header


def read_counts(
    path: LocationLike,
    *,
    rows_digest: str,
    fingerprint: str,
    tar_size: int | None = None,
    data: bytes | None = None,
) -> Counts:
    """Read and verify the counts for the index with `rows_digest` and the tokenizer with
    `fingerprint`. `data` are the bytes of the file, where they have been read.

    Raises ShardError if they belong to another index or tokenizer, are corrupted, or would take
    more memory than the counts of a tar of `tar_size` bytes can (not checked if None).
    """
    with _explain(path):
        # From one buffer: three times as fast as pyarrow's small reads of a file.
        data = read_all(path) if data is None else data
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            header = _header(path, file.metadata.metadata)
            _check_owner(path, header, rows_digest, fingerprint)
            if not file.schema_arrow.equals(SCHEMA):
                raise ShardError(str(path), "its columns do not match those of token counts")
            check_row_count(str(path), file.metadata, header.samples)
            if tar_size is not None:
                check_column_bytes(str(path), data, tar_size)
            table = file.read(use_threads=False)
        if digest_of_rows(table) != header.rows_digest:
            raise ShardError(str(path), "checksum mismatch: the rows were changed")
        counts = replace(_counts(table), damaged=header.damaged)
        # -1: an answer that is not trained on.
        least = ((counts.user, 0), (counts.assistant, -1), (counts.images, 0))
        below = any(bool((column < lowest).any()) for column, lowest in least)
        if len(counts) != header.samples or below:
            raise ShardError(str(path), "the counts are inconsistent")
        if not all(at < len(counts) and not counts.turns(at) for at in counts.damaged):
            raise ShardError(str(path), "it counts turns of samples that it calls damaged")
    return counts


def _counts(table: pa.Table) -> Counts:
    turns = single(table.column("turns"))
    inner = elements(turns)
    user, assistant, images = (np.asarray(numbers(inner.field(name))) for name in TurnCount._fields)
    return Counts(np.asarray(starts(turns), np.int64), user, assistant, images)


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
        raise ShardError(str(path), "is not a token counts file")
    check_version(str(path), document.get("version"))
    check_seal(str(path), document)
    damaged = document.setdefault("damaged", [])
    if not (isinstance(damaged, list) and all(map(is_count, damaged))):
        raise ShardError(str(path), "its positions of damaged samples are no list of counts")
    values = {name: document[name] for name in CountsHeader.__dataclass_fields__}
    return CountsHeader(**{**values, "damaged": tuple(damaged)})


def _check_owner(
    path: LocationLike, header: CountsHeader, rows_digest: str, fingerprint: str
) -> None:
    if header.fingerprint != fingerprint:
        raise ShardError(
            str(path),
            f"was counted with tokenizer {header.fingerprint}, but {fingerprint} is in use",
        )
    if header.index_rows_digest != rows_digest:
        raise ShardError(
            str(path), "was counted for other samples: the shard or its index was replaced since"
        )


@contextmanager
def _explain(path: LocationLike) -> Iterator[None]:
    """Make every error about a corrupted file a ShardError with its name and a remedy."""
    try:
        with explain_parquet(path, "token counts file", REMEDY):
            yield
    except ShardError as exc:
        raise type(exc)(exc.shard, exc.detail, remedy=exc.remedy or REMEDY) from exc
