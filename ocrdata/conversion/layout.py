"""Which origin rows are in which shard of a conversion."""

from __future__ import annotations

from dataclasses import dataclass

from ocrdata.shards.names import PLAIN


@dataclass(frozen=True)
class Layout:
    """Maps shard numbers to origin rows, for the slice `[start, stop)` of `rows` rows.

    Shard K holds the rows `[K * shard_samples, (K + 1) * shard_samples)` that are in the slice. Its
    name and content depend neither on where the slice starts nor on rejects in other shards.
    """

    name: str
    rows: int
    start: int
    stop: int
    shard_samples: int
    ending: str = PLAIN

    @property
    def shards(self) -> range:
        """Numbers of the shards that the slice needs."""
        return range(self.start // self.shard_samples, -(-self.stop // self.shard_samples))

    def file(self, shard: int) -> str:
        """NAME-000.tar or .tar.zst; three digits, or as many as the last of all rows needs."""
        last = max(0, -(-self.rows // self.shard_samples) - 1)
        return f"{self.name}-{shard:0{max(3, len(str(last)))}d}{self.ending}"

    def span(self, shard: int) -> range:
        """The origin rows of one shard."""
        first = shard * self.shard_samples
        return range(max(first, self.start), min(first + self.shard_samples, self.stop))
