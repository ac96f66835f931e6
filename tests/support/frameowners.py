"""The samples in each frame of a compressed shard."""

from __future__ import annotations

from ocrdata.shards.index import Index


def owners(index: Index) -> list[list[int]]:
    """The positions of the samples in each frame."""
    assert index.frames is not None
    found: list[list[int]] = [[] for _ in range(len(index.frames.sizes))]
    for position, offset in enumerate(index.offsets):
        found[index.frames.at(offset)].append(position)
    return found
