"""The texts of a shard, read from near and from far."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from ocrdata.errors import DigestError, ShardError
from ocrdata.reading import shard_set as shard_sets
from ocrdata.reading import texts
from ocrdata.reading.shard_set import ShardSet
from ocrdata.reading.spec import resolve
from ocrdata.reading.texts import text_cost, texts_of, texts_of_shard
from ocrdata.storage import fetching
from ocrdata.storage.fetching import FetchedFile, fetcher
from tests.support.far import FarFolder
from tests.support.rows import flip, write_set


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCR_SHARDS_CACHE", str(tmp_path / "cache"))
    # No second requests, of which a busy machine sends more.
    monkeypatch.setattr(fetching, "FIRST_PATIENCE_S", 60)
    monkeypatch.setattr(fetching, "LEAST_PATIENCE_S", 60)


def shard_set(spec: str) -> ShardSet:
    return ShardSet(resolve(spec), verify=True)


@pytest.mark.parametrize("ending", [".tar", ".tar.zst"])
@pytest.mark.parametrize("whole", [True, False])
def test_equal_from_near_and_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, whole: bool
) -> None:
    monkeypatch.setattr(texts, "REQUEST_BYTES", 1 << 30 if whole else 1)
    write_set(tmp_path, "n", [40], ("PNG", "JPEG"), ending)
    near = list(texts_of_shard(shard_set(str(tmp_path / "n.json"))))
    assert [at for at, _ in near] == list(range(40))
    assert all(
        isinstance(members, dict) and members[f"{at:09d}.png"] == b"" and members[f"{at:09d}.json"]
        for at, members in near
    )
    with FarFolder(tmp_path) as far:
        assert list(texts_of_shard(shard_set(f"{far.url}/n.json"))) == near
        asked = sum(".tar" in path for path in far.paths)
    if ending == ".tar":
        assert asked == (1 if whole else 40)


@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_text_is_named_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.setattr(texts, "REQUEST_BYTES", 1 << 30 if whole else 1)
    write_set(tmp_path, "n", [9])
    row = shard_set(str(tmp_path / "n.json")).block(0, 4)[0].members(4)[0]
    flip(tmp_path / "n-000.tar", row.offset + 2)
    with FarFolder(tmp_path) as far:
        found = list(texts_of_shard(shard_set(f"{far.url}/n.json")))
    damaged = [(at, one) for at, one in found if isinstance(one, ShardError)]
    assert [at for at, _ in found] == list(range(9)) and [at for at, _ in damaged] == [4]
    assert isinstance(damaged[0][1], DigestError) and damaged[0][1].key == "000000004"


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("positions", [range(3, 9), range(8, 2, -2), [1, 5, 6]])
def test_some_texts_of_a_later_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool, positions: Sequence[int]
) -> None:
    monkeypatch.setattr(texts, "REQUEST_BYTES", 1 << 30 if whole else 1)
    write_set(tmp_path, "n", [4, 12, 2])
    near = shard_set(str(tmp_path / "n.json"))
    wanted = [(at, near.text_members(1, at)) for at in positions]
    assert list(texts_of(near, 1, positions)) == wanted
    with FarFolder(tmp_path) as far:
        assert list(texts_of(shard_set(f"{far.url}/n.json"), 1, positions)) == wanted
        in_order = whole and positions == range(3, 9)
        assert sum(".tar" in path for path in far.paths) == (1 if in_order else len(positions))
    assert fetcher().held == 0


def test_a_damaged_image_damages_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "REQUEST_BYTES", 1 << 30)
    write_set(tmp_path, "n", [9])
    near = list(texts_of_shard(shard_set(str(tmp_path / "n.json"))))
    row = shard_set(str(tmp_path / "n.json")).block(0, 4)[0].members(4)[1]
    flip(tmp_path / "n-000.tar", row.offset + 2)
    with FarFolder(tmp_path) as far:
        assert list(texts_of_shard(shard_set(f"{far.url}/n.json"))) == near


@pytest.mark.parametrize("ending", [".tar", ".tar.zst"])
def test_single_samples_here_and_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    hinted: list[tuple[int, int]] = []
    plain = FetchedFile.hint

    def hint(self: FetchedFile, ranges: Sequence[tuple[int, int]]) -> None:
        hinted.extend(ranges)
        plain(self, ranges)

    monkeypatch.setattr(FetchedFile, "hint", hint)
    monkeypatch.setattr(shard_sets, "SAMPLES_AHEAD", 3)
    write_set(tmp_path, "n", [9, 1, 12], ("PNG", "JPEG"), ending)
    near = shard_set(str(tmp_path / "n.json"))
    places = [(0, 8), (0, 2), (1, 0), (2, 5), (2, 6), (2, 11), (0, 0)]
    wanted = [near.members(*place) for place in places]
    assert list(near.each_members(places)) == wanted
    with FarFolder(tmp_path) as far:
        there = shard_set(f"{far.url}/n.json").each_members(iter(places))
        assert next(there) == wanted[0]
        assert len(hinted) == 4
        assert [wanted[0], *there] == wanted
        assert len(hinted) == (7 if ending == ".tar" else 6)  # a frame is cached by then
        if ending == ".tar":  # each range was asked for once, as it had been announced
            assert sum(".tar" in path for path in far.paths) == 7
    assert fetcher().held == 0


def test_cost_of_small_and_large_samples() -> None:
    assert text_cost(1024, 1024 * 38_000) == (38, 1024 * 38_000)
    assert text_cost(1024, 1024 * 200_000) == (1024, 1024 * 2048)
