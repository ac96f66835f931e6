"""Indexing any tar: equal to the writer's index, or an error."""

import os
import threading
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import ShardError, TruncatedError
from ocrdata.images.decode import ImageInfo
from ocrdata.reading import zstd_tar
from ocrdata.reading.index_tar import index_tar
from ocrdata.reading.view import open_shards
from ocrdata.sample import Sample, from_turns
from ocrdata.shards.index import (
    Index,
    index_path,
    read_index,
    write_index,
)
from ocrdata.shards.members import split_name
from ocrdata.shards.output import ZstdOptions
from ocrdata.shards.writer import ShardWriter
from ocrdata.storage.sealed import version_problem
from tests.support.compressed import Piece, chat, sized, skippable, streamed, write, write_chats
from tests.support.rows import image, samples, write_shard, write_tar


def same(one: Index, other: Index) -> bool:
    return one.header == other.header and bool(one.table.equals(other.table))


@settings(deadline=None, max_examples=60)
@given(st.lists(samples(), max_size=5), st.integers(0, 10**12))
def test_indexing_a_tar_gives_the_index_its_writer_wrote(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Sample], start: int
) -> None:
    path = tmp_path_factory.mktemp("shard") / "x-000.tar"
    write_shard(path, rows, start)
    written, found = read_index(index_path(path)), index_tar(path)
    assert same(written, found)
    assert len(found) == len(rows)
    for position, row in enumerate(rows):
        assert found.row(position).turns == row.turns
        assert found.row(position).source == row.source
        assert len(found.row(position).images) == len(row.images)
    again = path.with_name("again.index.parquet")
    write_index(again, found)
    assert again.read_bytes() == index_path(path).path.read_bytes()


def test_foreign_tar_is_indexed(tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "photos.tar",
        [
            ("README", b"not in a sample"),
            ("a/.hidden.png", b"not in a sample"),
            ("a/one.jpg", image("JPEG")),
            ("a/one.txt", b"a caption"),
            ("a/two.seg.PNG", b"not an image"),
            ("a/two.json", b'{"source": "web", "other": 1}'),
            ("b/one.cls", b"3"),
            ("b/one.bin", bytes(3 << 20)),
        ],
    )
    index = index_tar(tar)
    assert index.keys == ["a/one", "a/two", "b/one"]
    assert [index.row(at).turns for at in range(3)] == [1, 0, 0]
    assert [index.row(at).source for at in range(3)] == ["", "web", ""]
    assert index.row(0).images == (ImageInfo("jpg", 8, 6),)
    assert index.row(1).images == ()  # a mask
    big = index.row(2).members[1]
    assert (big.size, big.digest) == (3 << 20, xxhash.xxh3_128_digest(bytes(3 << 20)))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.png", "b.png", "a.txt"], "sample a: member a.txt: .*adjacent"),
        (["a.png", "a.txt", "a.png"], "sample a: member a.png: "),
        (["a.png", "../b.png"], r"'\.\./b\.png'"),
    ],
)
def test_names_that_cannot_form_samples(tmp_path: Path, names: list[str], message: str) -> None:
    tar = write_tar(tmp_path / "x.tar", [(name, b"x") for name in names])
    with pytest.raises(ShardError, match=message):
        index_tar(tar)


@pytest.mark.parametrize(
    "raw", [b"{", b"[1]", b'{"messages": 3}', b"[" * 10**5, b"\xff", b'{"source": "\\ud800"}']
)
def test_foreign_json_has_no_turns(tmp_path: Path, raw: bytes) -> None:
    tar = write_tar(tmp_path / "x.tar", [("a.json", raw)])
    assert index_tar(tar).row(0).turns == 0


def test_names_are_split_into_key_and_suffix() -> None:
    assert split_name("000000001.json") == ("000000001", "json")
    assert split_name("a.b/c.1.jpg") == ("a.b/c", "1.jpg")
    assert split_name("README") is None
    assert split_name("a/.DS_Store") is None


def test_tar_that_changes_while_it_is_indexed(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", [(f"{n}.png", image("PNG")) for n in range(3000)])
    begun, done = threading.Event(), threading.Event()

    def touch() -> None:
        moment = 0
        while not done.is_set():
            moment += 1
            os.utime(tar, ns=(moment, moment))
            begun.set()

    thread = threading.Thread(target=touch)
    thread.start()
    begun.wait()
    try:
        with pytest.raises(ShardError, match=r"x\.tar: .*changed"):
            index_tar(tar)
    finally:
        done.set()
        thread.join()


def test_indexing_a_compressed_shard_gives_the_index_its_writer_wrote(tmp_path: Path) -> None:
    for count in (0, 1, 200):
        path = write_chats(tmp_path / f"z-{count:03d}.tar.zst", count, ZstdOptions(5000, 3))
        written = read_index(index_path(path))
        assert same(written, index_tar(path))
        assert (len(written.header.frames) > 10) == (count == 200)


@pytest.mark.parametrize("largest", [1000, 1 << 24])
@pytest.mark.parametrize("make", [sized, streamed])
def test_foreign_compressed_tar(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[bytes], Piece],
    largest: int,
) -> None:
    """One frame or several, split anywhere, with a skippable frame first."""
    monkeypatch.setattr(zstd_tar, "LARGEST_IN_MEMORY", largest)
    plain = write_chats(tmp_path / "x-000.tar", 50)
    data, expected = plain.read_bytes(), index_tar(plain)
    for number, cuts in enumerate(([], [700], [512, 513, 30_000], [len(data) - 1024])):
        bounds = [0, *cuts, len(data)]
        parts = [make(data[a:b]) for a, b in pairwise(bounds)]
        path = tmp_path / f"z-{number:03d}.tar.zst"
        write(path, [skippable(b"first"), *parts])
        found = index_tar(path)
        assert found.table.equals(expected.table)
        assert found.header.tar_size == len(data)
        assert found.header.shard_size == path.stat().st_size
        shards = open_shards(str(path))
        assert list(shards) == [chat(at) for at in range(50)]
        assert [shards[at] for at in (49, 3, 20)] == [chat(at) for at in (49, 3, 20)]


def test_truncated_compressed_tar(tmp_path: Path) -> None:
    plain = write_chats(tmp_path / "x-000.tar", 50)
    data = plain.read_bytes()
    for length in (len(data) - 1024, len(data) - 1, 3000):
        write(tmp_path / "z-000.tar.zst", [sized(data[:length])])
        with pytest.raises(TruncatedError, match=r"z-000\.tar\.zst: "):
            index_tar(tmp_path / "z-000.tar.zst")
    path = write_chats(tmp_path / "z-001.tar.zst", 50, ZstdOptions(4000, 3))
    header, whole = read_index(index_path(path)).header, path.read_bytes()
    starts = [0, *accumulate(size for size, _ in header.frames)]
    for size in (*starts[:-2], 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(TruncatedError):
            index_tar(path)
    path.write_bytes(whole[: starts[-2]])  # without its seek table, which holds none of the tar
    assert len(index_tar(path)) == 50


def test_member_too_large_for_a_compressed_tar(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", [("a.json", bytes(20 << 20))])
    write(tmp_path / "z.tar.zst", [sized(b""), streamed(tar.read_bytes())])
    with pytest.raises(ShardError, match=r"z\.tar\.zst: .*16,777,216.*\n.*zstd -d"):
        index_tar(tmp_path / "z.tar.zst")


@pytest.mark.parametrize("ending", ["tar", "tar.zst"])
def test_the_index_of_a_shard_with_an_answer_of_weight_0_is_one_that_older_readers_refuse(
    tmp_path: Path, ending: str
) -> None:
    """A reader of version 1 does not know `weight`: it would train on the answer."""
    for weight, version in ((0, "2.0"), (1, "1.1" if ending.endswith("zst") else "1.0")):
        chat = from_turns([("1+1=", "3"), ('what is a "weight"?', "2")], [], source="", meta={})
        chat.messages[1]["weight"] = weight
        path = tmp_path / f"w{weight}-000.{ending}"
        with ShardWriter(path) as writer:
            writer.write("000000000", from_turns([("q", "a")], [], source="", meta={}))
            writer.write("000000001", chat)
        written = read_index(index_path(path)).header
        assert written.version == version
        assert index_tar(path).header == written  # the same from the tar alone
        assert open_shards(path)[1].messages == chat.messages
    assert "2.0 is newer than 1.2" in version_problem("2.0", "1.2")  # the newest one before


@pytest.mark.parametrize(
    ("weight", "valid"),
    [(0, True), (1, True), (None, True), (False, True), (0.5, False), ("0", False), ([0], False)],
)
def test_a_weight_in_a_foreign_tar_is_0_or_1(tmp_path: Path, weight: Any, valid: bool) -> None:
    chat = from_turns([("q", "a"), ("q", "b")], [], source="", meta={})
    chat.messages[1]["weight"] = weight
    path = tmp_path / "w-000.tar"
    with ShardWriter(path) as writer:
        writer.write("000000000", chat)
    if valid:
        assert open_shards(path)[0].messages == chat.messages
    else:
        with pytest.raises(ShardError, match=r"w-000\.tar: sample 000000000.*weight of 0 or 1"):
            open_shards(path)[0]
