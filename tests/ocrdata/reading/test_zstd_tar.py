"""Random access to the tar in a compressed shard: exact bytes, only the frames needed."""

import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import DigestError, ShardError, TruncatedError
from ocrdata.reading import zstd_tar
from ocrdata.reading.zstd_tar import FrameCache, ZstdTar
from ocrdata.storage.local import LocalFile
from tests.support.compressed import Piece, pieces, sized, streamed, write
from tests.support.rows import flip


@settings(deadline=None, max_examples=150)
@given(st.data(), pieces(), st.sampled_from([1, 100, 1 << 20]), st.sampled_from([0, 200, 1 << 20]))
def test_any_part_of_any_frames_is_exact(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    frames: list[Piece],
    largest: int,
    kept: int,
) -> None:
    """Frames above `largest` are streamed, the others decompressed whole, with any cache size."""
    path = tmp_path_factory.mktemp("file") / "x.tar.zst"
    table = write(path, frames)
    tar = b"".join(piece.content for piece in frames)
    file = ZstdTar(LocalFile(path), table, cache=FrameCache(kept))
    assert file.size == len(tar)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zstd_tar, "LARGEST_IN_MEMORY", largest)
        for _ in range(8):
            offset = data.draw(st.integers(0, len(tar)))
            size = data.draw(st.integers(0, len(tar) - offset))
            assert file.read(offset, size) == tar[offset : offset + size]
            buffer = bytearray(size)
            file.read_into(offset, memoryview(buffer))
            assert buffer == tar[offset : offset + size]
            ranges = [(offset, size), (0, size)]
            assert file.read_ranges(ranges) == [tar[at : at + size] for at, size in ranges]


def test_only_the_frames_needed_are_decompressed(tmp_path: Path) -> None:
    contents = [b"frame %d " % n * 40 for n in range(6)]
    table = write(tmp_path / "x", map(sized, contents))
    for number in (0, 1, 4, 5):
        flip(tmp_path / "x", table.starts[number] + 8)
    file = ZstdTar(LocalFile(tmp_path / "x"), table)
    both = contents[2] + contents[3]
    assert file.read(table.contents[2], len(both)) == both
    with pytest.raises(DigestError):
        file.read(table.contents[2], len(both) + 1)


def test_error_of_a_corrupted_frame_names_its_samples(tmp_path: Path) -> None:
    contents = [b"frame %d " % n * 40 for n in range(3)]
    table = write(tmp_path / "x", map(sized, contents))
    flip(tmp_path / "x", table.starts[1] + 8)
    asked = []

    def samples(start: int, stop: int) -> str:
        asked.append((start, stop))
        return "samples a, b"

    file = ZstdTar(LocalFile(tmp_path / "x"), table, samples=samples)
    place = f"{re.escape(str(tmp_path))}/x: the zstd frame at byte {table.starts[1]} "
    with pytest.raises(DigestError, match=rf"^{place}.* samples a, b\n"):
        file.read(table.contents[1] + 5, 1)
    assert asked == [(table.contents[1], table.contents[2])]
    with pytest.raises(DigestError, match=rf"^{place}.*\)\n"):
        ZstdTar(LocalFile(tmp_path / "x"), table).frame(1)


def test_corrupted_frame_that_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zstd_tar, "LARGEST_IN_MEMORY", 10)
    data = random.Random(3).randbytes(5 << 20)
    table = write(tmp_path / "x", [streamed(data)])
    file = ZstdTar(LocalFile(tmp_path / "x"), table, samples=lambda _start, _stop: "sample a")
    assert file.read(4 << 20, 9) == data[4 << 20 : (4 << 20) + 9]
    assert file.read(1, 9) == data[1:10]
    flip(tmp_path / "x", table.starts[-1] - 2)
    with pytest.raises(DigestError, match="sample a\n"):
        file.read(table.tar_size - 1, 1)
    flip(tmp_path / "x", table.starts[-1] - 2)
    assert file.read(table.tar_size - 1, 1) == data[-1:]


def test_reads_beyond_the_end_or_too_large(tmp_path: Path) -> None:
    table = write(tmp_path / "x", [sized(b"abc")])
    file = ZstdTar(LocalFile(tmp_path / "x"), table)
    assert file.read(3, 0) == b""
    with pytest.raises(TruncatedError, match=r"x: .*\b3\b.*\b4\b"):
        file.read(1, 3)
    with pytest.raises(ShardError, match=r"16,777,217 .* 16,777,216 .*\n.*zstd -d"):
        file.read(0, (1 << 24) + 1)


def test_cache_is_bounded(tmp_path: Path) -> None:
    contents = [bytes([n]) * 1000 for n in range(20)]
    table = write(tmp_path / "x", map(sized, contents))
    cache = FrameCache(limit=3500)
    file = ZstdTar(LocalFile(tmp_path / "x"), table, cache=cache)
    for number in random.Random(0).choices(range(20), k=100):
        assert file.frame(number) == contents[number]
        held = [contents.index(content) for content in cache.whole.values()]
        assert held[-1] == number and len(held) <= 3
    (tmp_path / "x").write_bytes(bytes(table.starts[-1]))
    assert file.frame(held[0]) == contents[held[0]]  # from the cache
    small = ZstdTar(LocalFile(tmp_path / "x"), table, cache=FrameCache(limit=0))
    with pytest.raises(DigestError):
        small.frame(0)


@pytest.mark.parametrize("largest", [10, 1 << 20])
def test_threads_can_share_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    monkeypatch.setattr(zstd_tar, "LARGEST_IN_MEMORY", largest)
    contents = [random.Random(n).randbytes(500 + n) for n in range(9)]
    table = write(tmp_path / "x", map(sized, contents))
    tar, wrong = b"".join(contents), []
    file = ZstdTar(LocalFile(tmp_path / "x"), table, cache=FrameCache(limit=1500))

    def work(seed: int) -> None:
        pick = random.Random(seed)
        for _ in range(150):
            at = pick.randrange(len(tar) - 900)
            if file.read(at, 900) != tar[at : at + 900]:
                wrong.append(at)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))  # raises what a thread raised
    assert not wrong
