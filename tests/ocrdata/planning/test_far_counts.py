"""Token counts of shards at URLs, from the list beside their manifest."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ocrdata.errors import DigestError
from ocrdata.planning.counting import count_shards
from ocrdata.reading.view import open_shards
from ocrdata.storage import fetching
from ocrdata.storage.block_cache import BlockCache
from ocrdata.tokens.tokenizer import Tokenizer
from tests.support.countkill import tokenizer, turns_of
from tests.support.far import Asked, FarFolder, Reply
from tests.support.rows import write_set

__all__ = ["tokenizer"]  # the fixture


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer) -> Iterator[Path]:
    monkeypatch.setenv("OCR_SHARDS_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "set"
    out.mkdir()
    write_set(out, "x", [5, 0, 7, 3])
    count_shards(open_shards(out / "x.json"), tokenizer)
    yield out
    fetching.use_cache(None)


def tars(far: FarFolder) -> int:
    return sum(path.endswith(".tar") for path in far.paths)


def test_listed_counts_are_fetched_once_and_no_shard_is_read(
    folder: Path, tokenizer: Tokenizer
) -> None:
    near = turns_of(count_shards(open_shards(folder / "x.json"), tokenizer))
    with FarFolder(folder) as far:
        for _ in range(2):
            assert turns_of(count_shards(open_shards(f"{far.url}/x.json"), tokenizer)) == near
        assert sum("tokens" in path for path in far.paths) == 1 + 3 and tars(far) == 0
        part = open_shards(f"{far.url}/x.json[:3]")
        assert turns_of(count_shards(part, tokenizer)) == near[:3]


def test_only_the_counts_of_the_slice_are_fetched(folder: Path, tokenizer: Tokenizer) -> None:
    with FarFolder(folder) as far:
        count_shards(open_shards(f"{far.url}/x.json[5:12]"), tokenizer)
        assert [path for path in far.paths if path.endswith("parquet")] == [
            f"/x-002.tokens-{tokenizer.fingerprint}.parquet"
        ]


def test_counts_that_are_not_the_listed_ones(folder: Path, tokenizer: Tokenizer) -> None:
    name = f"x-002.tokens-{tokenizer.fingerprint}.parquet"
    (folder / name).write_bytes((folder / name.replace("002", "003")).read_bytes())
    with FarFolder(folder) as far, pytest.raises(DigestError, match=name):
        count_shards(open_shards(f"{far.url}/x.json"), tokenizer)


@pytest.mark.parametrize("damage", ["missing", "cut", "another set"])
def test_without_a_list_that_is_right_the_shards_are_counted(
    folder: Path, tokenizer: Tokenizer, damage: str
) -> None:
    near = turns_of(count_shards(open_shards(folder / "x.json"), tokenizer))
    (listed,) = folder.glob("x.tokens-*.json")
    if damage == "missing":
        listed.unlink()
    elif damage == "cut":
        listed.write_bytes(listed.read_bytes()[:-9])
    else:
        other = folder.parent / "other"
        other.mkdir()
        write_set(other, "x", [4, 1])
        count_shards(open_shards(other / "x.json"), tokenizer)
        (wrong,) = other.glob("x.tokens-*.json")
        listed.write_bytes(wrong.read_bytes())
    with FarFolder(folder) as far:
        assert turns_of(count_shards(open_shards(f"{far.url}/x.json"), tokenizer)) == near
        assert tars(far) == 3


@pytest.mark.parametrize("listed", [True, False])
def test_a_cache_too_small_for_the_counts(
    folder: Path, tmp_path: Path, tokenizer: Tokenizer, listed: bool
) -> None:
    near = turns_of(count_shards(open_shards(folder / "x.json"), tokenizer))

    def answer(asked: Asked) -> Reply | None:
        return Reply(404) if "tokens" in asked.path and not listed else None

    fetching.use_cache(BlockCache(tmp_path / "small", 5_000))
    with FarFolder(folder, answer) as far:
        there = open_shards(f"{far.url}/x.json")
        assert turns_of(count_shards(there, tokenizer)) == near
        assert [there.ref(at).key for at in range(15)] == [f"{at:09d}" for at in range(15)]
