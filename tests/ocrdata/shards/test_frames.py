import random
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import DigestError, ShardError, TruncatedError
from ocrdata.shards.frames import (
    FREE_GROWTH,
    MAX_GROWTH,
    MAX_WINDOW,
    Decompressor,
    FrameTable,
    block_size,
    check_growth,
    compress,
    frame_head,
    seek_table,
)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=3000), st.integers(1, 5))
def test_a_frame_is_what_went_in(data: bytes, level: int) -> None:
    frame = compress(data, level)
    assert frame == compress(data, level)
    head = frame_head("x", frame[:18], 0)
    assert (head.content, head.checksum, head.skippable) == (len(data), True, None)
    assert Decompressor().frame("x", frame, 0, len(data)) == data


def test_every_flipped_bit_is_an_error_or_without_meaning() -> None:
    """A few bits mean nothing: one of the header, and codes of letters that never occur."""
    data = b"".join(b"question %d answer %d " % (n, n * n) for n in range(40))
    frame, reader = compress(data, 3), Decompressor()
    harmless = 0
    for bit in range(8 * len(frame)):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            assert reader.frame("x", bytes(damaged), 700, len(data)) == data
            harmless += 1
        except DigestError as exc:
            assert str(exc).startswith("x: the zstd frame at byte 700 is damaged (")
    assert harmless < 8 * len(frame) / 40
    assert reader.frame("x", frame, 700, len(data)) == data  # usable after all that


def test_every_cut_and_every_other_size_is_an_error() -> None:
    data = b"some text, " * 50
    frame, reader = compress(data, 3), Decompressor()
    for size in range(len(frame)):
        with pytest.raises(DigestError):
            reader.frame("x", frame[:size], 0, len(data))
    for wrong in (0, len(data) - 1, len(data) + 1, 1 << 40):
        with pytest.raises(DigestError, match=rf"\b{len(data)}\b.*\b{wrong:,}\b"):
            reader.frame("x", frame, 0, wrong)
    with pytest.raises(DigestError, match="unused data"):
        reader.frame("x", frame + b"more", 0, len(data))


def test_a_frame_that_does_not_say_its_size() -> None:
    writer = zstandard.ZstdCompressor().compressobj()
    frame = writer.compress(b"abc" * 100) + writer.flush()
    assert frame_head("x", frame[:18], 0).content is None
    assert Decompressor().frame("x", frame, 0, 300) == b"abc" * 100
    for wrong in (299, 301):
        with pytest.raises(DigestError):
            Decompressor().frame("x", frame, 0, wrong)


def test_what_is_no_frame_of_ours() -> None:
    data = random.Random(0).randbytes(2 * MAX_WINDOW)
    large = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27)
    )
    started = large.compressobj()
    wide = started.compress(data[: 1 << 20]) + started.flush()
    words = [bytes([65 + n % 26]) * 60 + data[60 * n : 60 * n + 60] for n in range(2000)]
    named = zstandard.train_dictionary(2048, words)
    tied = zstandard.ZstdCompressor(dict_data=named).compress(b"abc" * 20)
    for head, message in (
        (b"PK\x03\x04" + bytes(14), "^x: .*zstd frame.*byte 1,234"),
        (wide[:18], "byte 1,234.*134,217,728.*16,777,216"),
        (tied[:18], "byte 1,234.*dictionary"),
    ):
        with pytest.raises(ShardError, match=message):
            frame_head("x", head, 1234)
    whole = compress(bytes(70_000), 3)
    for size in range(frame_head("x", whole[:18], 0).payload):
        with pytest.raises(TruncatedError, match=r"zstd frame at byte 9\b"):
            frame_head("x", whole[:size], 9)
    with pytest.raises(TruncatedError):
        frame_head("x", seek_table([])[:7], 9)
    with pytest.raises(ShardError, match="block at byte 7 "):
        block_size("x", b"\x06\0\0", 7)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 5)), min_size=1, max_size=20))
def test_the_table_against_a_list_of_owners(frames: list[tuple[int, int]]) -> None:
    table = FrameTable.of(frames)
    owners = [number for number, (_, content) in enumerate(frames) for _ in range(content)]
    assert [table.at(offset) for offset in range(table.tar_size)] == owners
    assert table.starts[-1] == sum(size for size, _ in frames)
    assert [table.content(number) for number in range(len(table.sizes))] == [c for _, c in frames]


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), max_size=20))
def test_the_seek_table_as_the_format_has_it(frames: list[tuple[int, int]]) -> None:
    raw = seek_table(frames)
    count, descriptor, magic = struct.unpack("<IBI", raw[-9:])
    assert (count, descriptor, magic) == (len(frames), 0, 0x8F92EAB1)
    assert struct.unpack("<II", raw[:8]) == (0x184D2A5E, len(raw) - 8)
    assert list(struct.iter_unpack("<II", raw[8:-9])) == frames
    assert frame_head("x", raw[:18], 0).skippable == len(raw) - 8


def test_growth() -> None:
    check_growth("x", 10, FREE_GROWTH + 10 * MAX_GROWTH)
    with pytest.raises(ShardError, match="bomb: 10 bytes"):
        check_growth("x", 10, FREE_GROWTH + 10 * MAX_GROWTH + 1)


def test_threads_share_a_decompressor() -> None:
    reader, wrong = Decompressor(), []
    contents = [random.Random(n).randbytes(1000) * (n + 1) for n in range(8)]
    frames = [compress(data, 3) for data in contents]

    def work(seed: int) -> None:
        for n in random.Random(seed).choices(range(8), k=200):
            if reader.frame("x", frames[n], 0, len(contents[n])) != contents[n]:
                wrong.append(n)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))  # raises what a thread raised
    assert not wrong
