"""Views of `.tar.zst` shards: the same samples as from `.tar`, or an error that names all samples
lost."""

import random
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import DigestError, ShardError, TruncatedError
from ocrdata.reading.verify import ShardStatistics, find, verify_shards
from ocrdata.reading.view import open_shards
from ocrdata.shards.index import index_path, read_index
from ocrdata.shards.names import make_key
from ocrdata.shards.output import ZstdOptions
from tests.support.compressed import chat, write_chats
from tests.support.frameowners import owners
from tests.support.rows import flip

COUNT = 150
SMALL = ZstdOptions(4000, 3)
"""Two to three samples per frame."""


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write_chats(tmp_path / "z-000.tar.zst", COUNT, SMALL)


def check_all(spec: Path) -> Iterator[ShardError]:
    return verify_shards(find(str(spec)), ShardStatistics())


@settings(deadline=None, max_examples=60)
@given(st.tuples(*[st.none() | st.integers(-COUNT - 5, COUNT + 5)] * 2), st.integers(-3, 3))
def test_slices_equal_those_of_a_list(
    tmp_path_factory: pytest.TempPathFactory, bounds: tuple[int | None, int | None], step: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "slices"
    if not folder.exists():
        folder.mkdir()
        write_chats(folder / "z-000.tar.zst", COUNT, SMALL)
    cut = slice(*bounds, step or None)
    view = open_shards(str(folder))[cut]
    wanted = list(range(COUNT))[cut]
    assert [one.meta["number"] for one in view] == wanted
    assert [view[at].meta["number"] for at in range(len(view))] == wanted


def test_slice_decompresses_only_its_own_frames(shard: Path) -> None:
    index = read_index(index_path(shard))
    assert index.frames is not None
    frames = owners(index)
    assert max(map(len, frames)) < 5 and len(frames) > 40
    kept = (frames[7][0], frames[9][-1] + 1)
    for number in range(len(frames) - 1):
        if not 7 <= number <= 9:
            flip(shard, index.frames.starts[number] + 9)
    view = open_shards(str(shard))[slice(*kept)]
    assert list(view) == [chat(number) for number in range(*kept)]
    assert view.by_key(make_key(kept[0])) == chat(kept[0])
    for at in (kept[0] - 1, kept[1]):
        with pytest.raises(ShardError):
            open_shards(str(shard))[at]


def test_corruption_names_every_sample_of_its_frame(shard: Path) -> None:
    """A thousandth of what `make torture` does."""
    index, pick = read_index(index_path(shard)), random.Random(4)
    assert index.frames is not None
    frames, size = owners(index), shard.stat().st_size
    errors = 0
    for at in [pick.randrange(size) for _ in range(60)]:
        flip(shard, at, at % 8)
        lost: set[int] = set()
        shards = open_shards(str(shard))
        for position in range(COUNT):
            try:
                assert shards[position] == chat(position)
            except ShardError as exc:
                errors += 1
                lost.add(position)
                assert exc.key == make_key(position) and str(exc).startswith(str(shard))
                number = index.frames.at(index.offsets[position])
                keys = [make_key(n) for n in frames[number]]
                named = f" samples? {', '.join(keys)}\n"
                assert re.search(named, str(exc)), str(exc)
        number = max(n for n in range(len(frames)) if index.frames.starts[n] <= at)
        assert lost in (set(), set(frames[number])), at
        seen = []
        if lost:
            with pytest.raises(
                ShardError, match=f"sample {make_key(min(lost))}: .*{make_key(max(lost))}\n"
            ):
                for one in shards:
                    seen.append(one.meta["number"])
            assert seen == list(range(min(lost)))
        flip(shard, at, at % 8)
    assert errors > 60


def test_many_lost_samples_are_named_by_first_and_last(tmp_path: Path) -> None:
    shard = write_chats(tmp_path / "z-000.tar.zst", COUNT)
    flip(shard, 500)
    with pytest.raises(ShardError, match=r"samples 000000000 to 000000\d+ \(\d+ of them\)"):
        open_shards(str(shard))[5]


def test_truncation_is_found_when_the_set_is_opened(shard: Path) -> None:
    whole = shard.read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        shard.write_bytes(whole[:size])
        with pytest.raises(TruncatedError, match=f" {size:,} bytes.* {len(whole):,} "):
            open_shards(str(shard))
    index_path(shard).path.unlink()
    shard.write_bytes(whole[:-1])
    with pytest.raises(TruncatedError, match="zstd frame"):
        open_shards(str(shard))


def test_index_of_the_same_shard_in_the_other_format(tmp_path: Path) -> None:
    packed = write_chats(tmp_path / "z-000.tar.zst", 5)
    write_chats(tmp_path / "x-000.tar", 5)
    index_path(packed).path.write_bytes(index_path(tmp_path / "x-000.tar").path.read_bytes())
    with pytest.raises(ShardError, match=r"z-000\.tar\.zst: .*index z-000\.index\.parquet"):
        open_shards(str(packed))
    other = write_chats(packed, 5).rename(tmp_path / "x-000.tar")
    index_path(packed).path.rename(index_path(other).path)
    found = next(check_all(other))
    assert found.shard == str(index_path(other)) and "(.tar or .tar.zst)" in str(found)
    with pytest.raises(ShardError, match=r"x-000\.index\.parquet .*\(\.tar or \.tar\.zst\)"):
        open_shards(str(other))[0]


def test_set_of_plain_and_compressed_shards(tmp_path: Path) -> None:
    write_chats(tmp_path / "a.tar", 7)
    write_chats(tmp_path / "b.tar.zst", 9, SMALL)
    shards = open_shards(str(tmp_path / "*.tar*"))
    assert list(shards) == [*map(chat, range(7)), *map(chat, range(9))]
    assert [ref.shard for ref in (shards.ref(6), shards.ref(7))] == ["a.tar", "b.tar.zst"]


def test_threads_can_share_a_compressed_set(shard: Path) -> None:
    shards, wrong = open_shards(str(shard)), []

    def work(seed: int) -> None:
        for at in random.Random(seed).choices(range(COUNT), k=200):
            if shards[at].meta["number"] != at:
                wrong.append(at)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))  # raises what a thread raised
    assert not wrong


def test_verification_names_every_lost_sample_once(tmp_path: Path) -> None:
    shard = write_chats(tmp_path / "z-000.tar.zst", COUNT, SMALL)
    assert not list(check_all(shard))
    index, pick = read_index(index_path(shard)), random.Random(5)
    assert index.frames is not None
    frames = owners(index)
    for number in (0, 5, 17, len(frames) - 2):
        at = pick.randrange(index.frames.starts[number] + 20, index.frames.starts[number + 1])
        flip(shard, at, 7)
        found = [error.key for error in check_all(shard)]
        assert [key for key in found if key] == [make_key(n) for n in frames[number]]
        flip(shard, at, 7)
    flip(shard, index.frames.starts[-2] + 3)  # the seek table: no sample depends on it
    (error,) = check_all(shard)
    assert isinstance(error, DigestError) and (error.shard, error.key) == (str(shard), "")
    assert list(open_shards(str(shard))) == list(map(chat, range(COUNT)))


def test_verification_without_an_index(tmp_path: Path) -> None:
    shard = write_chats(tmp_path / "z-000.tar.zst", COUNT, SMALL)
    index_path(shard).path.unlink()
    contents = ShardStatistics()
    assert not list(verify_shards(find(str(shard)), contents))
    assert (contents.samples, contents.bytes) == (COUNT, shard.stat().st_size)
    flip(shard, 100)
    (error,) = check_all(shard)
    assert isinstance(error, DigestError) and "zstd frame at byte 0" in str(error)
