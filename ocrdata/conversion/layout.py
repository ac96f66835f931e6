"""Which origin rows lie in which shard of a conversion."""

from __future__ import annotations

from dataclasses import dataclass

from ocrdata.shards.names import PLAIN


@dataclass(frozen=True)
class Layout:
    """Which origin rows lie in which shard, for rows `[start, stop)` of `rows`.

    Shard K holds rows `[K * shard_samples, (K + 1) * shard_samples)` of the origin, cut to the
    slice: its name and content depend neither on the slice's beginning nor on rejects elsewhere.
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
        """NAME-000.tar or .tar.zst; three digits, more where all rows need them."""
        last = max(0, -(-self.rows // self.shard_samples) - 1)
        return f"{self.name}-{shard:0{max(3, len(str(last)))}d}{self.ending}"

    def span(self, shard: int) -> range:
        """The origin rows of one shard."""
        first = shard * self.shard_samples
        return range(max(first, self.start), min(first + self.shard_samples, self.stop))
