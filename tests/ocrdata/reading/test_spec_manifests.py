"""The manifests of the shards a spec names: found, checked against the shards, never ignored."""

import json
from pathlib import Path

import pytest

from ocrdata.errors import ShardError, SpecError
from ocrdata.reading.spec import resolve
from ocrdata.reading.view import open_shards
from ocrdata.tokens.counts_list import CountsList
from tests.support.rows import sample, write_set, write_shard


def test_every_set_is_checked_against_its_manifest(tmp_path: Path) -> None:
    one, two = write_set(tmp_path, "a", [2, 1]), write_set(tmp_path, "b", [1])
    found = resolve([tmp_path / "a.json", tmp_path / "b.json"])
    assert [found.listed[path].manifest for path in found.files] == [one, one, two]
    assert found.manifest is None
    # A replaced shard is detected, whichever other sets are named.
    write_shard(tmp_path / "a-001.tar", [sample(7)], 7)
    for spec in (["a.json", "b.json"], ["a-*.tar", "b.json"], ["a-<000..001>.tar"]):
        with pytest.raises(ShardError, match=r"a-001\.tar"):
            open_shards([str(tmp_path / text) for text in spec])[2]


def test_shard_missing_from_the_manifest_of_its_set(tmp_path: Path) -> None:
    write_set(tmp_path, "a", [2, 1])
    write_shard(tmp_path / "a-002.tar", [sample(9)], 9)
    for text in ("a-*.tar", "a-<000..002>.tar", "a-002.tar"):
        with pytest.raises(ShardError, match=r"a-002\.tar: .*a\.json"):
            resolve(tmp_path / text)
    assert len(resolve(tmp_path / "a-<000..001>.tar").listed) == 2


@pytest.mark.parametrize("mark", [b'"format": "', b'"kind": "'])
def test_manifest_without_format_or_kind_is_not_ignored(tmp_path: Path, mark: bytes) -> None:
    write_set(tmp_path, "a", [2])
    path = tmp_path / "a.json"
    path.write_bytes(path.read_bytes().replace(mark, mark + b"x", 1))
    for text in ("a-*.tar", "a-<000..000>.tar", "a-000.tar", ""):
        with pytest.raises(ShardError, match=r"a\.json"):
            resolve(tmp_path / text)


def test_json_of_another_kind_is_not_a_manifest(tmp_path: Path) -> None:
    write_shard(tmp_path / "a-000.tar", [sample(0)])
    (tmp_path / "a.json").write_text('[{"image": "x.png"}]')
    assert resolve(tmp_path / "a-*.tar").listed == {}


def test_unfinished_set_can_only_be_named_shard_by_shard(tmp_path: Path) -> None:
    write_shard(tmp_path / "a-000.tar", [sample(0)])
    (tmp_path / ".a.making").mkdir()
    for text in ("", "a-*.tar"):
        with pytest.raises(SpecError, match=r": a is incomplete.*make_shards"):
            resolve(tmp_path / text)
    for text in ("a-000.tar", "a-<000..000>.tar"):
        assert len(resolve(tmp_path / text).files) == 1


def test_a_list_of_token_counts_is_no_set_of_its_own(tmp_path: Path) -> None:
    manifest = write_set(tmp_path, "a", [2, 1])
    document = CountsList("a", "0f", ()).document()
    (tmp_path / "a.tokens-0f.json").write_text(json.dumps(document, indent=2, sort_keys=True))
    assert resolve(tmp_path).manifest == manifest
    with pytest.raises(SpecError, match=rf"a\.tokens-0f\.json: .*{tmp_path / 'a.json'}"):
        resolve(tmp_path / "a.tokens-0f.json")
