"""Which rows of a global batch each rank takes. Imports nothing, as `choices` does."""

from __future__ import annotations

from ocrdata.errors import UsageError


def rank_rows(batch: int, rank: int, world: int) -> range:
    """The rows of a global batch that one of `world` ranks trains on. Raises UsageError if they
    cannot be split evenly."""
    if world < 1 or not 0 <= rank < world:
        raise UsageError(f"rank {rank} of {world}: a rank must be 0 to world size - 1")
    if batch % world:
        near = [n * world for n in (batch // world, batch // world + 1) if n]
        raise UsageError(
            f"--batch {batch}: {batch} rows cannot be split evenly across {world} ranks; use "
            f"--batch {' or '.join(map(str, near))}, or start as many ranks as divide it"
        )
    each = batch // world
    return range(rank * each, (rank + 1) * each)
