"""`--only K`: one shard of an unfinished set, or the repair of a damaged shard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ocrdata.conversion.convert import convert, convert_one
from ocrdata.conversion.options import ConversionOptions
from ocrdata.errors import OcrError, UsageError
from ocrdata.shards.manifest import read_manifest, write_manifest
from tests.support.numbered import Numbered, reads
from tests.support.shardcommand import made

BAD = frozenset({3, 6, 21, 24})


@pytest.fixture
def options(tmp_path: Path) -> ConversionOptions:
    return ConversionOptions(tmp_path / "out", "set", shard_samples=10, max_reject_fraction=0.2)


@pytest.fixture
def source(tmp_path: Path) -> Numbered:
    return Numbered(45, BAD, log=tmp_path / "log")


def test_a_shard_made_alone_becomes_part_of_the_set(
    options: ConversionOptions, source: Numbered, tmp_path: Path
) -> None:
    convert(source, replace(options, out=tmp_path / "whole"))
    (tmp_path / "log").unlink()
    assert convert_one(source, options, 2).file == "set-002.tar"
    assert reads(tmp_path / "log") == [(20, 30)]
    assert not (options.out / "set.json").exists()
    (tmp_path / "log").unlink()
    convert(source, options)
    assert reads(tmp_path / "log") == [(0, 20), (30, 45)]
    assert made(options.out) == made(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["lost", "flipped", "lost index"])
def test_one_shard_of_a_complete_set_is_repaired(
    options: ConversionOptions, source: Numbered, damage: str
) -> None:
    convert(source, options)
    before = made(options.out)
    tar = options.out / "set-003.tar"
    if damage == "lost":
        tar.unlink()
    elif damage == "flipped":
        data = bytearray(tar.read_bytes())
        data[700] ^= 1
        tar.write_bytes(data)
    else:
        (options.out / "set-003.index.parquet").unlink()
    convert_one(source, options, 3)
    assert made(options.out) == before


def test_a_repair_from_a_changed_source_replaces_nothing(
    options: ConversionOptions, source: Numbered
) -> None:
    convert(source, options)
    (options.out / "set-003.tar").unlink()
    before = made(options.out)
    # The same provenance, other rows: no pinned commit protects from a changed image in a folder.
    changed = replace(source, bad=BAD | {33})
    with pytest.raises(OcrError, match=r"set-003\.tar: .*manifest.*source has changed"):
        convert_one(changed, options, 3)
    assert made(options.out) == before


def test_an_index_of_another_library_version_is_replaced(
    options: ConversionOptions, source: Numbered
) -> None:
    manifest = convert(source, options)
    old = replace(manifest.shards[3], index_digest="0" * 32)
    shards = (*manifest.shards[:3], old, *manifest.shards[4:])
    write_manifest(options.out / "set.json", replace(manifest, shards=shards))
    convert_one(source, options, 3)
    assert read_manifest(options.out / "set.json") == manifest


@pytest.mark.parametrize("shard", [-1, 5, 40])
def test_a_shard_number_out_of_range(
    options: ConversionOptions, source: Numbered, shard: int
) -> None:
    with pytest.raises(UsageError, match=f"--only {shard}: .*0 to 4"):
        convert_one(source, options, shard)
