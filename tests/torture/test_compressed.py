"""A thousand faults of each kind in a compressed shard: exact bytes, or an error that names the
shard and every sample of the frame; with its index and without."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ocrdata.errors import ShardError
from ocrdata.reading.view import open_shards
from ocrdata.shards.index import Index, index_path, read_index
from ocrdata.shards.names import make_key
from ocrdata.shards.output import ZstdOptions
from tests.support.compressed import chat, write_chats
from tests.support.frameowners import owners

pytestmark = pytest.mark.torture

COUNT, FAULTS = 120, 1000
Fault = Callable[[bytes, Index, random.Random], bytes]


def flipped(data: bytes, _: Index, pick: random.Random) -> bytes:
    damaged = bytearray(data)
    damaged[pick.randrange(len(data))] ^= 1 << pick.randrange(8)
    return bytes(damaged)


def cut(data: bytes, _: Index, pick: random.Random) -> bytes:
    return data[: pick.randrange(len(data))]


def cut_between_frames(data: bytes, index: Index, pick: random.Random) -> bytes:
    assert index.frames is not None
    return data[: pick.choice(index.frames.starts[:-1])]


def zeroed(data: bytes, _: Index, pick: random.Random) -> bytes:
    at, size = pick.randrange(len(data)), pick.choice([1, 64, 4096])
    return data[:at] + bytes(min(size, len(data) - at)) + data[at + size :]


def swapped(data: bytes, index: Index, pick: random.Random) -> bytes:
    assert index.frames is not None
    starts = index.frames.starts
    a = pick.randrange(len(starts) - 3)
    return (
        data[: starts[a]]
        + data[starts[a + 1] : starts[a + 2]]
        + data[starts[a] : starts[a + 1]]
        + data[starts[a + 2] :]
    )


def lost(index: Index) -> dict[int, str]:
    """What an error about each sample must say where its frame is damaged."""
    words = {}
    for positions in owners(index):
        keys = ", ".join(make_key(n) for n in positions)
        words.update(dict.fromkeys(positions, f"and with it samples? {keys}\n"))
    return words


@pytest.mark.parametrize("fault", [flipped, cut, cut_between_frames, zeroed, swapped])
def test_with_its_index(fault: Fault, tmp_path: Path) -> None:
    shard = write_chats(tmp_path / "z-000.tar.zst", COUNT, ZstdOptions(4000, 3))
    index, sound, pick = read_index(index_path(shard)), shard.read_bytes(), random.Random(1)
    words, errors = lost(index), 0
    for _ in range(FAULTS):
        data = fault(sound, index, pick)
        shard.write_bytes(data)
        if len(data) != len(sound):
            with pytest.raises(ShardError, match=re.escape(str(shard))):
                open_shards(str(shard))
            errors += 1
            continue
        shards = open_shards(str(shard))
        for position in range(COUNT):
            try:
                assert shards[position] == chat(position)
            except ShardError as exc:
                errors += 1
                assert exc.key == make_key(position)
                assert str(exc).startswith(str(shard))
                if "zstd frame" in str(exc):
                    assert re.search(words[position], str(exc))
    assert errors >= FAULTS * 9 // 10


@pytest.mark.parametrize("fault", [flipped, cut, cut_between_frames, zeroed])
def test_without_an_index(fault: Fault, tmp_path: Path) -> None:
    shard = write_chats(tmp_path / "z-000.tar.zst", COUNT, ZstdOptions(4000, 3))
    index, sound, pick = read_index(index_path(shard)), shard.read_bytes(), random.Random(2)
    assert index.frames is not None
    seek_table, silent, harmless = index.frames.starts[-2], [], 0
    for _ in range(FAULTS):
        index_path(shard).unlink(missing_ok=True)
        data = fault(sound, index, pick)
        shard.write_bytes(data)
        try:
            found = list(open_shards(str(shard)))
        except ShardError as exc:
            assert str(exc).startswith(str(shard))
            continue
        harmless += 1
        if found != [chat(n) for n in range(COUNT)]:
            silent.append(data)
    assert not silent
    # Nothing but the seek table, which nobody reads, may be damaged or gone; and a few single
    # bits of a frame mean nothing.
    assert harmless < FAULTS * (1 - 0.8 * seek_table / len(sound)) + FAULTS // 20
