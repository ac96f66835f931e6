import os
import random
import struct
from pathlib import Path

import pytest
import xxhash
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.shards.output import PlainOutput, Written, ZstdOptions, ZstdOutput
from ocrdata.storage.location import Location


def written(
    path: Path, samples: list[bytes], how: ZstdOptions | None, end: bytes = b"END"
) -> Written:
    """Each sample goes in as two parts."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    plain = PlainOutput(handle, Location.of(path))
    sink = plain if how is None else ZstdOutput(plain, how)
    for sample in samples:
        sink.put(sample[: len(sample) // 2])
        sink.put(sample[len(sample) // 2 :])
        sink.end_sample()
    done = sink.finish(end)
    os.close(handle)
    return done


lengths = st.lists(st.integers(0, 400), max_size=30)


@settings(deadline=None, max_examples=80)
@given(lengths, st.integers(1, 1000))
def test_frames_hold_whole_samples(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], largest: int
) -> None:
    path = tmp_path_factory.mktemp("sink") / "x"
    samples = [random.Random(n).randbytes(size) for n, size in enumerate(sizes)]
    done = written(path, samples, ZstdOptions(largest, 1))
    data = path.read_bytes()
    assert (done.size, done.digest) == (len(data), xxhash.xxh3_128_hexdigest(data))
    bounds = {sum(sizes[:n]) for n in range(len(sizes) + 1)}
    at = content = 0
    tar = b""
    for size, held in done.frames[:-1]:
        frame = data[at : at + size]
        found = zstandard.get_frame_parameters(frame)
        assert found.has_checksum and found.content_size == held
        assert content in bounds
        tar += zstandard.ZstdDecompressor().decompress(frame)
        alone = any(sum(sizes[:n]) == content and s >= held - 3 for n, s in enumerate(sizes))
        assert held <= largest + 3 or alone
        at, content = at + size, content + held
    assert tar == b"".join(samples) + b"END"
    assert done.frames[-1] == (len(data) - at, 0)
    assert struct.unpack("<II", data[at : at + 8])[0] == 0x184D2A5E
    assert struct.unpack("<IBI", data[-9:])[0] == len(done.frames) - 1
    assert list(struct.iter_unpack("<II", data[at + 8 : -9])) == list(done.frames[:-1])


@settings(deadline=None, max_examples=30)
@given(lengths)
def test_bytes_as_they_are(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    path = tmp_path_factory.mktemp("sink") / "x"
    samples = [random.Random(n).randbytes(size) for n, size in enumerate(sizes)]
    done = written(path, samples, None)
    data = path.read_bytes()
    assert data == b"".join(samples) + b"END"
    assert done == Written(len(data), xxhash.xxh3_128_hexdigest(data))


@pytest.mark.parametrize("most", [1, 700, 4096])
def test_a_disk_that_takes_little_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """A write may take less than it is given."""
    samples = [random.Random(n).randbytes(97 * n) for n in range(20)]
    real = os.write
    monkeypatch.setattr(os, "writev", lambda handle, parts: real(handle, b"".join(parts)[:most]))
    written(tmp_path / "x", samples, None)
    assert (tmp_path / "x").read_bytes() == b"".join(samples) + b"END"


def test_many_small_parts_and_large_ones(tmp_path: Path) -> None:
    samples = [b"ab"] * 3000 + [bytes(3 << 20)] + [b"c"] * 3000
    done = written(tmp_path / "x", samples, None)
    assert (tmp_path / "x").read_bytes() == b"".join(samples) + b"END"
    assert done.size == sum(map(len, samples)) + 3
