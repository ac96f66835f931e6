"""The same text, however it is stored."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import SourceError
from ocrdata.sources import json_rows
from ocrdata.sources.json_rows import RowFile
from ocrdata.sources.text_files import TextFile

SKIPPABLE = struct.pack("<II", 0x184D2A5E, 3) + b"abc"


def halves(compress: Callable[[bytes], bytes], data: bytes) -> bytes:
    """Two members or frames, as `cat a.gz b.gz` gives."""
    middle = len(data) // 2
    return compress(data[:middle]) + compress(data[middle:])


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "gzip in two": lambda data: halves(gzip.compress, data),
    "zstd": zstd,
    "zstd in two": lambda data: SKIPPABLE + halves(zstd, data) + SKIPPABLE,
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")

records = st.lists(
    st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), st.integers(), max_size=2),
    min_size=1,
    max_size=9,
)


@settings(max_examples=80, deadline=None)
@given(
    found=records,
    as_array=st.booleans(),
    encoding=st.sampled_from(ENCODINGS),
    compression=st.sampled_from(list(COMPRESSIONS)),
    line_end=st.sampled_from(["\n", "\r\n"]),
    start=st.integers(0, 9),
)
def test_rows_do_not_depend_on_encoding_and_compression(
    *,
    tmp_path_factory: pytest.TempPathFactory,
    found: list[dict[str, int]],
    as_array: bool,
    encoding: str,
    compression: str,
    line_end: str,
    start: int,
) -> None:
    text = (
        json.dumps(found, ensure_ascii=False, indent=1)
        if as_array
        else line_end.join(json.dumps(record, ensure_ascii=False) for record in found)
    )
    data = COMPRESSIONS[compression](text.encode(encoding))
    path = tmp_path_factory.mktemp("text") / "rows"  # the name says nothing
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "STRIDE", 2)
        file = RowFile(path)
        rows = [(number, json.loads(row)) for number, row in file.rows(start, 99)]
    assert rows == list(enumerate(found))[start:]
    assert (file.size, file.digest) == (len(data), xxhash.xxh3_128_hexdigest(data))


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_truncated_and_corrupted_data_are_an_error(tmp_path: Path, name: str) -> None:
    lines = b"".join(b'{"n": %d, "text": "%d"}\n' % (n, n * n) for n in range(3_000))
    data = COMPRESSIONS[name](lines)
    path = tmp_path / "rows.jsonl"
    ends = {len(data) - 1, len(data) - 5, len(data) // 2, 20}
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 16
    for broken in (*(data[:end] for end in ends), data + data[:30], bytes(flipped)):
        path.write_bytes(broken)
        with pytest.raises(SourceError, match=rf"rows\.jsonl: the {name} data are corrupted or"):
            RowFile(path)


def test_a_file_that_changes_between_counting_and_reading(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"n": 1}\n' * 50))
    file = RowFile(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SourceError, match=r"rows\.jsonl\.gz: .*changed"):
        list(file.rows(0, 50))


def test_text_that_is_not_in_its_encoding(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"n": 1}'.encode("utf-16") + b"\x00\xd8\x00")
    with pytest.raises(SourceError, match=r"rows\.jsonl: invalid UTF-16: "):
        RowFile(path)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"),
        (b"PK\x03\x04", "a zip archive"),
        (b"PAR1\x15\x04", "a Parquet file"),
        (b"000000000.json\0\0", "not text"),
        (b"\x89PNG\r\n\x1a\n", "an image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path: Path, head: bytes, what: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(head + b"x" * 99)
    with pytest.raises(SourceError, match=rf"a\.jsonl: .*{what}"):
        TextFile(tmp_path / "a.jsonl")


def test_a_small_file_that_expands_takes_little_memory(tmp_path: Path) -> None:
    """40 MB of spaces in 4 KB, read a chunk at a time."""
    compressor = zstandard.ZstdCompressor(level=19).compressobj()
    data = b"".join(compressor.compress(b" " * (1 << 20)) for _ in range(40)) + compressor.flush()
    (tmp_path / "a.zst").write_bytes(data)
    assert len(data) < 10_000
    with TextFile(tmp_path / "a.zst").open() as file:
        largest = total = 0
        while chunk := file.read1(1 << 30):  # type: ignore[attr-defined]
            largest, total = max(largest, len(chunk)), total + len(chunk)
    assert total == 40 << 20 and largest <= 64 << 20
