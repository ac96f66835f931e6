"""Whether the finished shards of an unfinished conversion are still what their input gives.

An input may be edited between two attempts, to mend the row at which the first one failed. The rows
of each finished shard are then read again and compared with the digests in its index: that costs
reading and hashing them, but no decoding and no writing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import xxhash

from ocrdata.conversion.layout import Layout
from ocrdata.errors import RejectedRow
from ocrdata.runtime.processes import Report
from ocrdata.sample import Sample
from ocrdata.shards.index import index_path, read_index
from ocrdata.shards.names import make_key
from ocrdata.sources.base import Source
from ocrdata.storage.location import Location, LocationLike


@dataclass(frozen=True)
class ComparisonTask:
    """What a worker needs to compare shards at `place` with the rows of `source`; it reports the
    number of each shard whose samples are all unchanged."""

    source: Source
    layout: Layout
    place: LocationLike

    def begin(self) -> None:
        """Nothing to prepare: nothing is written."""

    def make(self, shards: Sequence[int], report: Report) -> None:
        """Compare shards. Raises SourceError, ShardError."""
        for shard in shards:
            if self._is_unchanged(shard):
                report(shard)

    def _is_unchanged(self, shard: int) -> bool:
        """Whether every sample of a shard is still in its input, as it was. Rows that were rejected
        are not looked at."""
        index = read_index(index_path(Location.of(self.place) / self.layout.file(shard)))
        finished = {
            key: [member.digest for member in index.members(position)]
            for position, key in enumerate(index.keys)
        }
        span = self.layout.span(shard)
        for row, result in self.source.rows(span.start, span.stop):
            digests = finished.pop(make_key(row), None)
            if digests is not None and digests != _digests(result):
                return False
        return not finished


def _digests(result: Sample | RejectedRow) -> list[bytes]:
    """The digests of a sample's members; [] for a row that cannot be written."""
    if isinstance(result, RejectedRow):
        return []
    try:
        payloads = [result.to_json(), *result.images]
    except ValueError:
        return []
    return [xxhash.xxh3_128_digest(data) for data in payloads]
