"""Reads the texts of samples of a shard, without their images: to count tokens, or to see the meta.

From a local disk the texts alone are read. At a URL each request costs as much time as some bytes:
where samples are small, whole shards are read in order, and their images dropped; where they are
large, each sample's text is requested by itself, many at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ocrdata.errors import ShardError
from ocrdata.reading.samples import skippable
from ocrdata.reading.sequential import CopyBuffer, SequentialReader
from ocrdata.reading.shard_set import Members, ShardSet, is_text
from ocrdata.shards.index_block import IndexBlock
from ocrdata.shards.members import IMAGE_SUFFIXES, kind_of
from ocrdata.storage.file import File

REQUEST_BYTES = 64 << 10
"""What could come in the time that a request of its own takes: about 800 requests and 50 MB a
second were measured at 30 ms."""

AHEAD = 256
"""Samples whose texts are requested before they are needed."""

Texts = Iterator[tuple[int, Members | ShardError]]
"""(position in the shard, its members with b"" for each image, or what is wrong with it)."""


class TextCost(NamedTuple):
    """What reading the texts of shards takes: requests and bytes."""

    requests: int
    bytes: int


def text_cost(samples: int, stored: int) -> TextCost:
    """About what reading the texts of a shard at a URL takes, from its size alone; texts are taken
    to be 2 KiB where they are read by themselves."""
    if _read_whole(samples, stored):
        return TextCost(-(-stored // (1 << 20)), stored)
    return TextCost(samples, samples * 2048)


def _read_whole(samples: int, stored: int) -> bool:
    return stored <= samples * REQUEST_BYTES


def texts_of_shard(shard_set: ShardSet) -> Texts:
    """The texts of the first shard of a set, in order. Raises ShardError for what concerns no
    single sample."""
    return texts_of(shard_set, 0, range(shard_set.shards[0].samples))


def texts_of(shard_set: ShardSet, number: int, positions: Sequence[int]) -> Texts:
    """The texts of the samples at these positions of shard `number`. Raises as `texts_of_shard`."""
    shard = shard_set.shards[number]
    in_order = isinstance(positions, range) and positions.step == 1
    if not shard.location.scheme:
        yield from _one_by_one(shard_set, number, positions)
        return
    if not (in_order and _read_whole(shard.samples, shard.bytes)):
        yield from _one_by_one(shard_set, number, _announced(shard_set, number, positions))
        return
    start, done = shard_set.starts[number], positions[0]
    while done <= positions[-1]:
        try:
            for members in _in_order(shard_set, range(start + done, start + positions[-1] + 1)):
                yield done, members
                done += 1
        except ShardError as exc:
            if not skippable(exc):
                raise
            yield from _one_by_one(shard_set, number, [done])  # perhaps only an image is damaged
            done += 1


def _one_by_one(shard_set: ShardSet, number: int, positions: Iterable[int]) -> Texts:
    for local in positions:
        try:
            yield local, shard_set.text_members(number, local)
        except ShardError as exc:
            yield local, exc


def _in_order(shard_set: ShardSet, positions: range) -> Iterator[Members]:
    for _, _, batch in SequentialReader(shard_set, CopyBuffer()).batches(positions):
        for members in batch:
            yield {
                name: b"" if kind_of(name) in IMAGE_SUFFIXES else data
                for name, data in members.items()
            }


def _announced(shard_set: ShardSet, number: int, positions: Iterable[int]) -> Iterator[int]:
    """The same positions, whose texts have been requested before."""
    coming: deque[tuple[int, File, tuple[int, int]]] = deque()
    try:
        for local in positions:
            block, at = shard_set.block(number, local)
            tar, wanted = shard_set.tar(number, block), _text_range(block, at)
            tar.hint([wanted])
            coming.append((local, tar, wanted))
            if len(coming) > AHEAD:
                yield coming.popleft()[0]
        while coming:
            yield coming.popleft()[0]
    finally:  # the caller may stop here
        for _, tar, wanted in coming:
            tar.unhint([wanted])


def _text_range(block: IndexBlock, at: int) -> tuple[int, int]:
    """(offset, size) of a sample's texts in the tar."""
    texts = list(filter(is_text, block.members(at)))
    start = min((one.offset for one in texts), default=0)
    return start, max((one.offset + one.size for one in texts), default=0) - start
