import json
import os
import resource
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import webdataset
import xxhash
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import DiskError, ImageError, RejectedRow, ShardError, UsageError
from ocrdata.reading.view import open_shards
from ocrdata.sample import Sample, from_turns
from ocrdata.shards.frames import MAX_FRAME
from ocrdata.shards.manifest import shard_info
from ocrdata.shards.names import make_key
from ocrdata.shards.output import ZstdOptions
from ocrdata.shards.writer import ShardWriter
from tests.support.compressed import chat, write_chats
from tests.support.rows import image, sample, samples, write_set, write_shard

ROOT = Path(__file__).parents[3]


@settings(deadline=None, max_examples=40)
@given(st.lists(samples(), max_size=4))
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Sample]
) -> None:
    path = tmp_path_factory.mktemp("shard") / "x-000.tar"
    write_shard(path, rows)
    assert list(open_shards(str(path))) == rows


def test_the_layout(tmp_path: Path) -> None:
    row = sample(3, ("GIF", "JPEG", "PNG", "WEBP"))
    info = write_shard(tmp_path / "x-000.tar", [row, sample(4, ())], start=3)
    data = (tmp_path / "x-000.tar").read_bytes()
    listed = subprocess.run(
        ["tar", "--list", "--verbose", "--numeric-owner", "-f", "x-000.tar"],
        cwd=tmp_path, check=True, capture_output=True, text=True, env={"TZ": "UTC", **os.environ},
    )  # fmt: skip
    assert listed.stderr == ""
    lines = [line.split() for line in listed.stdout.splitlines()]
    assert [line[-1] for line in lines] == [
        "000000003.json", "000000003.gif", "000000003.1.jpg", "000000003.2.png",
        "000000003.3.webp", "000000004.json",
    ]  # fmt: skip
    assert {tuple(line[:2] + line[3:5]) for line in lines} == {
        ("-rw-r--r--", "0/0", "1970-01-01", "00:00")
    }
    assert data[-1024:] == bytes(1024)
    assert data[-1536:-1024] != bytes(512)
    assert info.digest == xxhash.xxh3_128_hexdigest(data)
    assert (info.file, info.samples, info.bytes) == ("x-000.tar", 2, len(data))
    index = tmp_path / "x-000.index.parquet"
    assert info.index_digest == xxhash.xxh3_128_hexdigest(index.read_bytes())
    assert shard_info(tmp_path / "x-000.tar") == info
    assert sorted(path.name for path in tmp_path.iterdir()) == [index.name, "x-000.tar"]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_shard(tmp_path / folder / "x-000.tar", map(sample, range(30)))
        write_shard(tmp_path / folder / "x-000.tar", map(sample, range(30)))  # over the first
    for name in ("x-000.tar", "x-000.index.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_no_samples_are_a_shard_too(tmp_path: Path) -> None:
    info = write_shard(tmp_path / "x-000.tar", [])
    assert (info.samples, info.bytes) == (0, 1024)
    assert len(open_shards(str(tmp_path / "x-000.tar"))) == 0
    subprocess.run(["tar", "-tf", "x-000.tar"], cwd=tmp_path, check=True)


def test_a_large_shard_is_written_in_parts(tmp_path: Path) -> None:
    rows = [sample(n, ["PNG"] * 40) for n in range(40)]
    rows.append(Sample(sample(40).messages, [image("BMP", 1100, 1100)], "big", {}))
    info = write_shard(tmp_path / "x-000.tar", rows)
    assert info.digest == xxhash.xxh3_128_hexdigest((tmp_path / "x-000.tar").read_bytes())
    assert open_shards(str(tmp_path / "x-000.tar"))[40] == rows[40]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["1"], "nine|9 digits"),
        (["00000000x"], "9 digits"),
        (["²00000000"], "9 digits"),
        (["000000002", "000000002"], "key '00000000[23]'"),
        (["1000000000", "000000003"], "key '00000000[23]'"),
    ],
)
def test_keys_are_row_numbers_that_rise(tmp_path: Path, keys: list[str], message: str) -> None:
    with (
        pytest.raises(UsageError, match=message),
        ShardWriter(tmp_path / "x-000.tar") as writer,
    ):
        for key in keys:
            writer.write(key, sample(0))
    assert not list(tmp_path.iterdir())


def test_keys() -> None:
    assert (make_key(3127), make_key(10**9)) == ("000003127", "1000000000")


def test_a_sample_with_a_bad_image_leaves_nothing_behind(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "x-000.tar") as writer:
        writer.write(make_key(0), sample(0))
        with pytest.raises(ImageError):
            writer.write(make_key(1), Sample([], [image("PNG"), b"no image"]))
        writer.write(make_key(2), sample(2))
    assert [s.meta for s in open_shards(str(tmp_path / "x-000.tar"))] == [
        {"number": 0},
        {"number": 2},
    ]


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), ShardWriter(tmp_path / "x-000.tar") as writer:
        writer.write(make_key(0), sample(0))
        raise KeyError
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="aborted"):
        writer.close()
    with pytest.raises(UsageError, match="is closed"):
        writer.write(make_key(1), sample(1))


def test_closing_twice_is_no_harm(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "x-000.tar") as writer:
        writer.write(make_key(0), sample(0))
        info = writer.close()
        assert writer.close() == info
    with pytest.raises(UsageError, match="is closed"):
        writer.write(make_key(1), sample(1))


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.tar or \.tar\.zst"):
        ShardWriter(tmp_path / "x.zip")
    with pytest.raises(DiskError, match="no such folder"):
        ShardWriter(tmp_path / "absent" / "x-000.tar")


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 600, 3000, 20000, 1 << 20])
def test_a_disk_that_refuses(tmp_path: Path, size: int) -> None:
    old = write_shard(tmp_path / "x-000.tar", [sample(9)])
    rows = [sample(n, ["BMP"] * 30) for n in range(60)]
    with (
        file_size_limit(size),
        pytest.raises(DiskError, match=r"x-000\.tar: .*size limit"),
    ):
        write_shard(tmp_path / "x-000.tar", rows)
    assert shard_info(tmp_path / "x-000.tar") == old
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_manifest_may_not_list(tmp_path: Path) -> None:
    path = tmp_path / "x-000.tar"
    with pytest.raises(ShardError, match="missing"):
        shard_info(path)
    write_shard(path, [sample(0)])
    os.truncate(path, 512)
    with pytest.raises(ShardError, match=r"x-000\.tar: has 512 bytes"):
        shard_info(path)


def payloads(rows: list[Sample]) -> dict[str, bytes]:
    found = {}
    for number, row in enumerate(rows):
        found[f"{make_key(number)}.json"] = row.to_json()
        for at, data in enumerate(row.images):
            found[f"{make_key(number)}{f'.{at}' if at else ''}.png"] = data
    return found


def test_gnu_tar_extracts_the_very_bytes(tmp_path: Path) -> None:
    rows = [sample(n, ("PNG",) * (n % 3)) for n in range(20)]
    write_shard(tmp_path / "x-000.tar", rows)
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        ["tar", "-xf", "../x-000.tar"], cwd=tmp_path / "out", capture_output=True, check=True
    )
    assert done.stderr == b""
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert found == payloads(rows)


def test_webdataset_reads_the_very_bytes(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [10, 10], ("PNG", "PNG"))
    urls = [str(tmp_path / f"x-{number:03d}.tar") for number in range(2)]
    found: dict[str, bytes] = {}
    keys = []
    with warnings.catch_warnings():
        # webdataset leaves closing its files to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        for one in webdataset.WebDataset(urls, shardshuffle=False):
            keys.append(one["__key__"])
            found |= {
                f"{one['__key__']}.{name}": data
                for name, data in one.items()
                if not name.startswith("__")
            }
    assert keys == [make_key(number) for number in range(20)]
    assert found == payloads([sample(number, ("PNG", "PNG")) for number in range(20)])


DATASETS = """
import json, sys
from datasets import Features, Image, Value, load_dataset
rows = load_dataset("webdataset", data_files={"train": sys.argv[1:]}, split="train")
rows = rows.cast_column("png", Image(decode=False))
for row in rows:
    print(json.dumps([row["__key__"], row["json"]["source"], row["png"]["bytes"].hex(),
                      row["json"]["messages"][1]["content"][0]["text"]]))
"""


def test_datasets_reads_a_set_of_one_image_format(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [6, 6])
    urls = [str(tmp_path / f"x-{number:03d}.tar") for number in range(2)]
    done = subprocess.run(
        [sys.executable, "-c", DATASETS, *urls],
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1",
             "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[Any] = [json.loads(line) for line in done.stdout.splitlines()]
    assert found == [
        [make_key(n), "numbers", sample(n).images[0].hex(), f"It is {n}."] for n in range(12)
    ]


def unpacked(path: Path) -> bytes:
    """A compressed shard through the zstd library's own stream, across its frames."""
    with zstandard.open(path, "rb") as file:
        return bytes(file.read())


@settings(deadline=None, max_examples=30)
@given(st.lists(samples(), max_size=5), st.integers(1, 5000))
def test_a_compressed_shard_holds_the_same_tar(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Sample], size: int
) -> None:
    folder = tmp_path_factory.mktemp("shard")
    plain, packed = folder / "x-000.tar", folder / "z-000.tar.zst"
    said = write_shard(plain, rows)
    for _ in range(2):
        with ShardWriter(packed, frames=ZstdOptions(size, 1)) as writer:
            for number, one in enumerate(rows):
                writer.write(make_key(number), one)
        before, info = packed.read_bytes(), writer.close()
    assert packed.read_bytes() == before
    assert unpacked(packed) == plain.read_bytes()
    assert writer.tar_size == plain.stat().st_size
    assert (info.samples, info.rows_digest) == (said.samples, said.rows_digest)
    assert (info.bytes, info.digest) == (len(before), xxhash.xxh3_128_hexdigest(before))
    assert list(open_shards(str(packed))) == rows


def test_every_tool_reads_a_compressed_shard(tmp_path: Path) -> None:
    packed = write_chats(tmp_path / "z-000.tar.zst", 300)
    plain = write_chats(tmp_path / "x-000.tar", 300)
    assert packed.stat().st_size * 3 < plain.stat().st_size
    if shutil.which("zstd") is None:
        pytest.skip("the zstd command is not here")
    out = subprocess.run(["zstd", "-dc", str(packed)], check=True, capture_output=True).stdout
    assert out == plain.read_bytes()
    listed = subprocess.run(
        ["tar", "--zstd", "-tf", str(packed)], check=True, capture_output=True, text=True
    )
    assert listed.stderr == ""
    assert listed.stdout.splitlines() == [f"{make_key(number)}.json" for number in range(300)]


def test_a_sample_too_large_to_be_compressed(tmp_path: Path) -> None:
    path = tmp_path / "z-000.tar.zst"
    large = from_turns([("q", "a" * MAX_FRAME)], [], source="s", meta={})
    with ShardWriter(path) as writer:
        writer.write(make_key(0), chat(0))
        with pytest.raises(RejectedRow, match="16,777,216"):
            writer.write(make_key(1), large)
        writer.write(make_key(2), chat(2))
    assert list(open_shards(str(path))) == [chat(0), chat(2)]
    with ShardWriter(tmp_path / "x-000.tar") as writer:
        writer.write(make_key(1), large)
    assert list(open_shards(str(tmp_path / "x-000.tar"))) == [large]


def test_a_compressed_shard_is_complete_or_absent(tmp_path: Path) -> None:
    with pytest.raises(ImageError), ShardWriter(tmp_path / "z-000.tar.zst") as writer:
        writer.write(make_key(0), chat(0))
        writer.write(make_key(1), from_turns([("q", "a")], [b"none"], source="s", meta={}))
    assert not list(tmp_path.iterdir())
