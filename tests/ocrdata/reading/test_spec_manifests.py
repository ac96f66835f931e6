"""What manifests say of the shards a spec names, and what they do not."""

from pathlib import Path

import pytest

from ocrdata.errors import ShardError, SpecError
from ocrdata.reading.spec import resolve
from ocrdata.reading.view import open_shards
from tests.support.rows import sample, write_set, write_shard


def test_manifests_of_several_sets_all_count(tmp_path: Path) -> None:
    one, two = write_set(tmp_path, "a", [2, 1]), write_set(tmp_path, "b", [1])
    found = resolve([tmp_path / "a.json", tmp_path / "b.json"])
    assert [found.listed[path].manifest for path in found.files] == [one, one, two]
    assert found.manifest is None
    # Another shard under the name of one that is listed is found out, whoever else is named.
    write_shard(tmp_path / "a-001.tar", [sample(7)], 7)
    for spec in (["a.json", "b.json"], ["a-*.tar", "b.json"], ["a-<000..001>.tar"]):
        with pytest.raises(ShardError, match=r"a-001\.tar"):
            open_shards([str(tmp_path / text) for text in spec])[2]


def test_a_shard_its_sets_manifest_does_not_list(tmp_path: Path) -> None:
    write_set(tmp_path, "a", [2, 1])
    write_shard(tmp_path / "a-002.tar", [sample(9)], 9)
    for text in ("a-*.tar", "a-<000..002>.tar", "a-002.tar"):
        with pytest.raises(ShardError, match=r"a-002\.tar: is not in the manifest .*a\.json"):
            resolve(tmp_path / text)
    assert len(resolve(tmp_path / "a-<000..001>.tar").listed) == 2


@pytest.mark.parametrize("mark", [b'"format": "', b'"kind": "'])
def test_a_manifest_that_lost_one_of_its_marks_is_not_passed_over(
    tmp_path: Path, mark: bytes
) -> None:
    write_set(tmp_path, "a", [2])
    path = tmp_path / "a.json"
    path.write_bytes(path.read_bytes().replace(mark, mark + b"x", 1))
    for text in ("a-*.tar", "a-<000..000>.tar", "a-000.tar", ""):
        with pytest.raises(ShardError, match=r"a\.json"):
            resolve(tmp_path / text)


def test_somebodys_own_json_is_no_manifest(tmp_path: Path) -> None:
    write_shard(tmp_path / "a-000.tar", [sample(0)])
    (tmp_path / "a.json").write_text('[{"image": "x.png"}]')
    assert resolve(tmp_path / "a-*.tar").listed == {}


def test_a_set_that_is_being_made_is_named_by_its_shards_alone(tmp_path: Path) -> None:
    write_shard(tmp_path / "a-000.tar", [sample(0)])
    (tmp_path / ".a.making").mkdir()
    for text in ("", "a-*.tar"):
        with pytest.raises(SpecError, match="a is not complete, its conversion has not ended"):
            resolve(tmp_path / text)
    for text in ("a-000.tar", "a-<000..000>.tar"):
        assert len(resolve(tmp_path / text).files) == 1
