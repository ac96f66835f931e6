"""Finding the frames of any zstd file, and streaming a large one."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import DigestError, ShardError, TruncatedError
from ocrdata.reading.zstd_tar import PIECE, ForwardReader, scan
from ocrdata.storage.local import LocalFile
from tests.support.bombs import can_measure
from tests.support.compressed import Piece, pieces, sized, skippable, streamed, write
from tests.support.rows import flip
from tests.support.zstdfiles import bomb

ROOT = Path(__file__).parents[3]


@settings(deadline=None, max_examples=150)
@given(pieces())
def test_frames_of_any_kind_are_found(
    tmp_path_factory: pytest.TempPathFactory, frames: list[Piece]
) -> None:
    path = tmp_path_factory.mktemp("scan") / "x.tar.zst"
    expected = write(path, frames)
    assert scan(LocalFile(path)).sizes == expected.sizes


def test_every_truncation_inside_a_frame_is_found(tmp_path: Path) -> None:
    frames = [sized(b"abc" * 90), skippable(b"note"), streamed(b"text " * 50), sized(bytes(700))]
    table = write(tmp_path / "x", frames)
    data = (tmp_path / "x").read_bytes()
    for size in range(len(data)):
        (tmp_path / "x").write_bytes(data[:size])
        if size in table.starts[1:]:
            assert scan(LocalFile(tmp_path / "x")).starts[-1] == size
        else:
            begin = max(start for start in table.starts if start <= size)
            with pytest.raises(TruncatedError, match=rf"zstd frame .*byte {begin}\b"):
                scan(LocalFile(tmp_path / "x"))


def test_file_that_is_not_zstd(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(sized(b"abc").raw + b"PK\3\4" + bytes(100))
    with pytest.raises(ShardError, match="zstd frame at byte 16"):
        scan(LocalFile(tmp_path / "x"))


@pytest.mark.skipif(shutil.which("zstd") is None, reason="the zstd command is not installed")
@pytest.mark.parametrize("options", [["-1"], ["-19"], ["-T2"], ["--no-check"], ["--rsyncable"]])
@pytest.mark.parametrize("piped", [False, True])
def test_files_of_the_zstd_command(tmp_path: Path, options: list[str], piped: bool) -> None:
    data = b"".join(b"%d " % n for n in range(300_000))
    plain, packed = tmp_path / "x", tmp_path / "x.zst"
    plain.write_bytes(data)
    if piped:
        out = subprocess.run(["zstd", "-qc", *options], input=data, stdout=-1, check=True).stdout
        packed.write_bytes(out)
    else:
        subprocess.run(["zstd", "-q", *options, str(plain), "-o", str(packed)], check=True)
    assert scan(LocalFile(packed)).tar_size == len(data)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3 * PIECE), st.integers(0, PIECE + 99)), max_size=8))
def test_streaming_any_parts_of_a_frame(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("forward") / "x"
    data = random.Random(1).randbytes(1 << 10) * 3200
    raw = b"lead" + streamed(data).raw
    path.write_bytes(raw + b"trail")
    forward = ForwardReader(LocalFile(path), 4, len(raw))
    for offset, size in sorted(wanted):
        size = min(size, len(data) - offset)
        assert forward.part(offset, size) == data[offset : offset + size]
    with pytest.raises(DigestError, match=f"byte 4 .* byte {len(data):,}"):
        forward.part(len(data), 1)


def test_streamed_frame_is_verified_at_its_end(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3 << 20)
    path = tmp_path / "x"
    path.write_bytes(streamed(data).raw)
    size, pick = path.stat().st_size, random.Random(2)
    for at in [pick.randrange(6, size) for _ in range(12)] + [size - 1]:
        flip(path, at, at % 8)
        forward = ForwardReader(LocalFile(path), 0, size)
        with pytest.raises(DigestError, match=r"x: .*zstd frame at byte 0 "):
            while forward.piece():
                pass
        flip(path, at, at % 8)


@pytest.mark.skipif(not can_measure(), reason="peak memory cannot be reset here")
@pytest.mark.parametrize("declares_size", [True, False])
def test_compression_bomb_is_rejected_in_little_memory(tmp_path: Path, declares_size: bool) -> None:
    bomb(tmp_path / "x.tar.zst", declares_size=declares_size)
    assert (tmp_path / "x.tar.zst").stat().st_size < 40_000
    code = """
import sys
from ocrdata.errors import ShardError
from ocrdata.reading.view import open_shards
from tests.support.bombs import measured
def rejected():
    try:
        open_shards(sys.argv[1])
    except ShardError as exc:
        print(exc)
print(measured(rejected))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.tar.zst")],
        capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    said, *_, grown = done.stdout.splitlines()
    assert "bomb" in said and " 32," in said
    assert int(grown) < 64 << 20, "bytes"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tar.zst"]
