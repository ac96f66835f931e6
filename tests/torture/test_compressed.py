"""A compressed shard damaged a thousand times in each way, with its index and without: every read
gives the original bytes, or an error that names the shard and every sample of the frame."""

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


def truncated(data: bytes, _: Index, pick: random.Random) -> bytes:
    return data[: pick.randrange(len(data))]


def truncated_between_frames(data: bytes, index: Index, pick: random.Random) -> bytes:
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


def keys_in_frame(index: Index) -> dict[int, str]:
    """For each sample, the keys that an error must list if its frame is damaged."""
    keys = {}
    for positions in owners(index):
        listed = ", ".join(make_key(n) for n in positions)
        keys.update(dict.fromkeys(positions, rf"samples? {listed}\b"))
    return keys


@pytest.mark.parametrize("fault", [flipped, truncated, truncated_between_frames, zeroed, swapped])
def test_damage_to_a_shard_with_its_index(fault: Fault, tmp_path: Path) -> None:
    shard = write_chats(tmp_path / "z-000.tar.zst", COUNT, ZstdOptions(4000, 3))
    index, whole, pick = read_index(index_path(shard)), shard.read_bytes(), random.Random(1)
    keys, errors = keys_in_frame(index), 0
    for _ in range(FAULTS):
        data = fault(whole, index, pick)
        shard.write_bytes(data)
        if len(data) != len(whole):
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
                    assert re.search(keys[position], str(exc))
    assert errors >= FAULTS * 9 // 10


@pytest.mark.parametrize("fault", [flipped, truncated, truncated_between_frames, zeroed])
def test_damage_to_a_shard_without_an_index(fault: Fault, tmp_path: Path) -> None:
    shard = write_chats(tmp_path / "z-000.tar.zst", COUNT, ZstdOptions(4000, 3))
    index, whole, pick = read_index(index_path(shard)), shard.read_bytes(), random.Random(2)
    assert index.frames is not None
    seek_table, wrong, harmless = index.frames.starts[-2], [], 0
    for _ in range(FAULTS):
        index_path(shard).path.unlink(missing_ok=True)
        data = fault(whole, index, pick)
        shard.write_bytes(data)
        try:
            found = list(open_shards(str(shard)))
        except ShardError as exc:
            assert str(exc).startswith(str(shard))
            continue
        harmless += 1
        if found != [chat(n) for n in range(COUNT)]:
            wrong.append(data)
    assert not wrong
    # Only damage to the seek table, which we do not read, and to a few unused bits of a frame may
    # go undetected.
    assert harmless < FAULTS * (1 - 0.8 * seek_table / len(whole)) + FAULTS // 20
