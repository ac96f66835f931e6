"""The texts of a shard, read from near and from far."""

from pathlib import Path

import pytest

from ocrdata.errors import DigestError, ShardError
from ocrdata.reading import texts
from ocrdata.reading.shard_set import ShardSet
from ocrdata.reading.spec import resolve
from ocrdata.reading.texts import text_cost, texts_of_shard
from ocrdata.storage import fetching
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


def test_cost_of_small_and_large_samples() -> None:
    assert text_cost(1024, 1024 * 38_000) == (38, 1024 * 38_000)
    assert text_cost(1024, 1024 * 200_000) == (1024, 1024 * 2048)
