"""Files and indexes behind a view: corruption, replacement and limits."""

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ocrdata.errors import DigestError, TransportError, TruncatedError, UsageError
from ocrdata.reading import index_cache
from ocrdata.reading.view import Shards, open_shards
from ocrdata.shards.names import make_key
from ocrdata.storage.local import LocalFile
from tests.support.rows import flip, sample, write_set, write_shard

COUNTS = (5, 0, 7, 1)


TOTAL = sum(COUNTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four shards of 5, 0, 7 and 1 samples, with a manifest."""
    path = tmp_path_factory.mktemp("set")
    write_set(path, "x", COUNTS, ("PNG", "JPEG"))
    return path


def numbers(view: Shards) -> list[int]:
    return [one.meta["number"] for one in view]


def test_a_sample_is_read_with_one_call_to_its_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = open_shards(str(folder))
    calls: list[list[tuple[int, int]]] = []
    original = LocalFile.read_ranges

    def counted(self: LocalFile, ranges: list[tuple[int, int]]) -> list[bytes]:
        calls.append(ranges)
        return original(self, ranges)

    monkeypatch.setattr(LocalFile, "read_ranges", counted)
    whole, row = shards.members(3), shards.row(3)
    assert len(whole) == 3  # JSON, PNG, JPEG
    assert calls == [[(member.offset, member.size) for member in row.members]]
    texts = shards.shard_set.text_members(0, 3)
    assert list(texts) == list(whole)
    assert [bool(data) for data in texts.values()] == [True, False, False]
    (ranges,) = calls[1:]  # nor are the bytes of images read
    assert ranges == [(row.members[0].offset, row.members[0].size)]


def test_key_found_in_two_shards(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shard(tmp_path / f"{name}.tar", [sample(1), sample(2)])
    shards = open_shards(str(tmp_path / "*.tar"))
    with pytest.raises(UsageError, match=r"2 .*'000000001' \(a\.tar, b\.tar\)"):
        shards.by_key(make_key(1))


def test_remedy_without_a_manifest(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0)])
    flip(tmp_path / "x-000.tar", 512)
    with pytest.raises(DigestError) as caught:
        open_shards(str(tmp_path))[0]
    assert caught.value.remedy and "--only" not in caught.value.remedy


def test_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [6])
    tar = tmp_path / "x-000.tar"
    shards = open_shards(str(tmp_path))
    row = shards.row(3)
    assert shards[0] == sample(0)
    os.truncate(tar, row.members[1].offset + 5)
    assert shards[2] == sample(2)
    for read in (shards.__getitem__, shards.members):
        with pytest.raises(TruncatedError, match=r"sample 000000003: member 000000003\.png: "):
            read(3)
    seen = []
    with pytest.raises(TruncatedError, match="sample 000000003"):
        for one in shards:
            seen.append(one.meta["number"])
    assert seen == [0, 1, 2]


def test_file_that_is_deleted_while_the_set_is_open(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [3, 3])
    shards = open_shards(str(tmp_path))
    assert shards[0] == sample(0)
    for number in range(2):
        (tmp_path / f"x-00{number}.tar").unlink()
    assert shards[1] == sample(1)  # this file is still open
    for read in (shards.__getitem__, shards.members):
        with pytest.raises(TransportError, match=r"x-001\.tar: sample 000000003: .*missing"):
            read(3)
    assert numbers(shards[:3]) == [0, 1, 2]
    with pytest.raises(TransportError, match=r"x-001\.tar: sample 000000003: .*missing"):
        numbers(shards)


def test_few_indexes_are_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path, "x", [3, 3, 3, 2])
    for limit, most in ((6, 6), (1, 3)):  # what was used last is always kept
        monkeypatch.setattr(index_cache, "INDEX_ROWS", limit)
        shards = open_shards(str(tmp_path))
        rng = random.Random(0)
        for _ in range(60):
            at = rng.randrange(11)
            assert shards[at].meta["number"] == at
            assert 0 < sum(map(len, shards.shard_set._blocks._recent.values())) <= most


def test_threads_can_share_a_view(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_cache, "INDEX_ROWS", 6)
    shards, wrong = open_shards(str(folder)), []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(100):
            at = rng.randrange(TOTAL)
            if shards[at].meta["number"] != at:
                wrong.append(at)
        if numbers(shards[seed:]) != list(range(seed, TOTAL)):
            wrong.append(seed)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))  # raises what a thread raised
    assert not wrong


def test_text_members_leave_out_the_bytes_of_images(folder: Path) -> None:
    shards = open_shards(str(folder / "x.json"))
    shard_set = shards.shard_set
    for at in range(len(shards)):
        number, local = shard_set.locate(at)
        members, texts = shard_set.members(number, local), shard_set.text_members(number, local)
        assert list(texts) == list(members)
        for name, data in members.items():
            assert texts[name] == (data if name.endswith(".json") else b"")
