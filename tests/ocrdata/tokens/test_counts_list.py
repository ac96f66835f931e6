"""The list of a set's token counts: read back as it was written, or an error that names it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import xxhash

from ocrdata.errors import ShardError, TransportError
from ocrdata.planning.counting import count_anew, count_shards
from ocrdata.reading.view import open_shards
from ocrdata.shards.manifest import Manifest, read_manifest
from ocrdata.storage.location import Location
from ocrdata.storage.sealed import seal
from ocrdata.tokens.counts import all_counts, counts_path, read_counts, write_counts
from ocrdata.tokens.counts_list import (
    CountsInfo,
    CountsList,
    counts_list_path,
    named_as_list,
    read_counts_list,
    remove_counts_lists,
    write_counts_list,
)
from ocrdata.tokens.tokenizer import Tokenizer
from tests.support.countkill import tokenizer
from tests.support.rows import write_set

__all__ = ["tokenizer"]  # the fixture


def listed(folder: Path, tokenizer: Tokenizer) -> Path:
    return folder / f"x.tokens-{tokenizer.fingerprint}.json"


def counted(folder: Path, tokenizer: Tokenizer, sizes: tuple[int, ...] = (3, 0, 2)) -> Manifest:
    """A set whose counts all lie beside its shards."""
    folder.mkdir(exist_ok=True)
    write_set(folder, "x", list(sizes))
    count_shards(open_shards(str(folder / "x.json")), tokenizer)
    return read_manifest(folder / "x.json")


def test_the_plan_that_completes_the_counts_writes_the_list(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    write_set(tmp_path, "x", [3, 0, 2])
    shards, path = open_shards(str(tmp_path / "x.json")), listed(tmp_path, tokenizer)
    count_shards(shards[:3], tokenizer)
    assert not path.exists()
    count_shards(shards[3:], tokenizer)
    manifest, found = read_manifest(tmp_path / "x.json"), read_counts_list(path)
    assert (found.name, found.fingerprint) == ("x", tokenizer.fingerprint)
    assert [entry.file for entry in found.shards] == ["x-000.tar", "x-002.tar"]
    for info in manifest.shards:
        entry = found.find(info)
        if not info.samples:
            assert entry is None
            continue
        data = counts_path(tmp_path / info.file, tokenizer.fingerprint).path.read_bytes()
        digest = xxhash.xxh3_128_hexdigest(data)
        assert entry == CountsInfo(info.file, info.samples, len(data), digest, info.rows_digest)
    said = json.loads(path.read_bytes())
    assert (said["format"], said["kind"], said["version"]) == ("ocr-shards", "tokens-list", "1.0")
    assert counts_list_path(tmp_path / "x.json", tokenizer.fingerprint) == Location.of(path)
    assert named_as_list(path.name) == ("x", tokenizer.fingerprint)
    assert named_as_list("x.json") is None


def test_the_same_counts_give_the_same_list(tmp_path: Path, tokenizer: Tokenizer) -> None:
    written = []
    for name in ("a", "b"):
        counted(tmp_path / name, tokenizer)
        written.append(listed(tmp_path / name, tokenizer).read_bytes())
    assert written[0] == written[1]


def test_the_list_of_counts_made_by_an_older_version_is_written_by_the_next_plan(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    counted(tmp_path, tokenizer)
    path = listed(tmp_path, tokenizer)
    before = path.read_bytes()
    path.unlink()
    count_shards(open_shards(str(tmp_path / "x-000.tar")), tokenizer)
    assert path.read_bytes() == before


def test_the_list_is_written_again_when_counts_are(tmp_path: Path, tokenizer: Tokenizer) -> None:
    manifest = counted(tmp_path, tokenizer)
    path, counts = listed(tmp_path, tokenizer), counts_path(tmp_path / "x-002.tar", "").path
    counts = counts_path(tmp_path / "x-002.tar", tokenizer.fingerprint).path
    before = path.read_bytes()
    # As another version of the Parquet library would write them.
    info = manifest.shards[2]
    kept = read_counts(counts, rows_digest=info.rows_digest, fingerprint=tokenizer.fingerprint)
    counts.write_bytes(counts.read_bytes() + b"")
    counts.unlink()
    count_shards(open_shards(str(tmp_path / "x-000.tar")), tokenizer)
    assert path.read_bytes() == before, "nothing was counted"
    path.write_bytes(b"{}")
    count_shards(open_shards(str(tmp_path / "x.json")), tokenizer)
    assert path.read_bytes() == before
    counts.write_bytes(b"damaged")
    count_anew([tmp_path / "x-002.tar"], tokenizer, workers=1)
    assert not path.exists(), "removed first, so that no killed process leaves a stale one"
    write_counts_list(Location.of(tmp_path), manifest, tokenizer.fingerprint)
    assert path.read_bytes() == before
    assert len(kept) == info.samples


def test_no_list_without_all_valid_counts(tmp_path: Path, tokenizer: Tokenizer) -> None:
    manifest = counted(tmp_path, tokenizer)
    path, fingerprint = listed(tmp_path, tokenizer), tokenizer.fingerprint
    folder, counts = Location.of(tmp_path), counts_path(tmp_path / "x-000.tar", fingerprint).path
    whole = counts.read_bytes()

    def write_again() -> bool:
        path.unlink(missing_ok=True)
        write_counts_list(folder, manifest, fingerprint)
        assert not list(tmp_path.glob(".x*"))
        return path.exists()

    assert write_again()
    counts.write_bytes(whole[:-40])
    assert not write_again()
    info = manifest.shards[0]
    few = read_counts(
        counts_path(tmp_path / "x-002.tar", fingerprint),
        rows_digest=manifest.shards[2].rows_digest,
        fingerprint=fingerprint,
    )
    write_counts(counts, few, rows_digest=info.rows_digest, fingerprint=fingerprint)
    assert not write_again(), "counts of 2 samples for 3"
    write_counts(counts, few, rows_digest="0" * 32, fingerprint=fingerprint)
    assert not write_again(), "counts of other samples"
    counts.write_bytes(whole)
    assert write_again()
    (tmp_path / "x.json").rename(tmp_path / "y.json")
    assert not write_again(), "it would lie beside no manifest"


def test_a_stale_list_says_nothing_of_other_samples(tmp_path: Path, tokenizer: Tokenizer) -> None:
    info = counted(tmp_path, tokenizer).shards[0]
    found = read_counts_list(listed(tmp_path, tokenizer))
    assert found.find(info)
    assert found.find(replace(info, rows_digest="0" * 32)) is None
    assert found.find(replace(info, samples=4)) is None
    assert found.find(replace(info, file="x-009.tar")) is None


def test_every_flipped_byte_and_every_cut_is_an_error(tmp_path: Path, tokenizer: Tokenizer) -> None:
    counted(tmp_path, tokenizer, (1,))
    path = listed(tmp_path, tokenizer)
    whole, found = path.read_bytes(), read_counts_list(path)
    for at in range(len(whole)):
        flipped = whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :]
        for bad in (flipped, whole[:at]):
            path.write_bytes(bad)
            try:
                assert read_counts_list(path) == found, at  # a space became another one
            except ShardError as exc:
                assert exc.shard == str(path), at


def rewritten(path: Path, change: dict[str, Any]) -> None:
    path.write_text(json.dumps(seal({**json.loads(path.read_bytes()), **change})))


def test_lists_that_are_sealed_but_wrong(tmp_path: Path, tokenizer: Tokenizer) -> None:
    counted(tmp_path, tokenizer)
    path = listed(tmp_path, tokenizer)
    entries = json.loads(path.read_bytes())["shards"]
    first = entries[0]
    for change, message in (
        ({"kind": "manifest"}, "not a list of token counts"),
        ({"version": "2.0"}, r"\b2\.0\b"),
        ({"shards": 5}, "invalid"),
        ({"shards": [first, first]}, "twice"),
        ({"shards": [{**first, "bytes": -1}]}, r"x-000\.tar: .*out of range"),
        ({"shards": [{**first, "digest": 7}]}, r"x-000\.tar: .*not a string"),
        ({"shards": [{"file": "x-000.tar"}]}, "samples"),
        ({"name": 3}, "not a string"),
    ):
        counted_again = json.loads(path.read_bytes())
        rewritten(path, change)
        with pytest.raises(ShardError, match=message) as caught:
            read_counts_list(path)
        assert caught.value.shard == str(path)
        path.write_text(json.dumps(counted_again))
    rewritten(path, {"version": "1.7"})
    assert len(read_counts_list(path).shards) == 2
    path.unlink()
    with pytest.raises(ShardError, match=rf"{path}: .*missing"):
        read_counts_list(path)
    path.mkdir()
    with pytest.raises((TransportError, OSError), match=path.name):
        read_counts_list(path)


def test_lists_of_other_sets_and_tokenizers_stay(tmp_path: Path) -> None:
    names = ["x.tokens-1.json", "x.tokens-2.json", "y.tokens-1.json", "x-000.tokens-1.parquet"]
    for name in names:
        (tmp_path / name).touch()
    remove_counts_lists([Location.of(tmp_path / "x-000.tar"), Location.of(tmp_path / "0.tar")], "1")
    remove_counts_lists([Location.of(tmp_path / "00000.tar")], "1")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])


def test_a_document_is_sealed(tmp_path: Path) -> None:
    document = CountsList("x", "f", (CountsInfo("x-000.tar", 1, 2, "d", "r"),)).document()
    assert document == seal(document) and document["shards"][0]["rows_digest"] == "r"
    assert not list(all_counts(tmp_path / "x-000.tar"))
