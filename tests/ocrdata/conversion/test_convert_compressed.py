"""`--compress zstd`: the same conversion, with shards named .tar.zst."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ocrdata.conversion.convert import convert, convert_one
from ocrdata.conversion.options import ConversionOptions
from ocrdata.errors import OcrError, UsageError
from ocrdata.reading.view import open_shards
from ocrdata.shards.index import index_path
from ocrdata.shards.manifest import Manifest, ShardInfo, read_manifest, write_manifest
from ocrdata.shards.output import ZstdOptions
from ocrdata.shards.writer import ShardWriter
from tests.support.numbered import Numbered, reads
from tests.support.shardcommand import made

BAD = frozenset({3, 6, 21, 24})


@pytest.fixture
def options(tmp_path: Path) -> ConversionOptions:
    return ConversionOptions(
        tmp_path / "out", "set", shard_samples=10, max_reject_fraction=0.2, compress="zstd"
    )


@pytest.fixture
def source(tmp_path: Path) -> Numbered:
    return Numbered(45, BAD, log=tmp_path / "log")


def test_compressed_shards_have_the_same_samples_as_plain_ones(
    options: ConversionOptions, source: Numbered, tmp_path: Path
) -> None:
    packed = convert(source, options)
    plain = convert(source, replace(options, out=tmp_path / "plain", compress=None))
    assert [shard.file for shard in packed.shards] == [f"set-{n:03d}.tar.zst" for n in range(5)]
    assert [s.rows_digest for s in packed.shards] == [s.rows_digest for s in plain.shards]
    assert list(open_shards(str(options.out))) == list(open_shards(str(tmp_path / "plain")))
    assert packed.provenance == {**plain.provenance, "compress": "zstd"}
    sizes = [(options.out / shard.file).stat().st_size for shard in packed.shards]
    assert [shard.bytes for shard in packed.shards] == sizes
    assert packed.totals == {
        **plain.totals,
        "bytes": sum(sizes),
        "tar_bytes": plain.totals["bytes"],
    }
    assert sorted(made(options.out)) == sorted(
        [f"set-{n:03d}{end}" for n in range(5) for end in (".tar.zst", ".index.parquet")]
        + ["set.json", "set.rejects.jsonl"]
    )


def test_workers_and_a_failed_source_do_not_change_the_files(
    options: ConversionOptions, tmp_path: Path
) -> None:
    convert(Numbered(45, BAD), replace(options, workers=3))
    broken = replace(options, out=tmp_path / "broken")
    with pytest.raises(OcrError):
        convert(Numbered(45, BAD, breaks_at=33), broken)
    assert not [name for name in made(broken.out) if name.endswith(".tmp")]
    log = tmp_path / "log"
    convert(Numbered(45, BAD, log=log), broken)
    assert reads(log) == [(30, 45)]
    assert made(broken.out) == made(options.out)


@pytest.mark.parametrize("lost", ["set-003.tar.zst", "set-003.index.parquet"])
@pytest.mark.parametrize("alone", [True, False])
def test_a_lost_file_is_recreated(
    options: ConversionOptions, source: Numbered, lost: str, alone: bool
) -> None:
    convert(source, options)
    before = made(options.out)
    (options.out / lost).unlink()
    if alone:
        convert_one(source, options, 3)
    else:
        convert(source, options)
    assert made(options.out) == before


def test_plain_and_compressed_shards_are_not_mixed(
    options: ConversionOptions, source: Numbered
) -> None:
    convert(source, options)
    with pytest.raises(UsageError, match="compress was 'zstd', now None"):
        convert(source, replace(options, compress=None))
    (options.out / "set.json").unlink()
    with pytest.raises(UsageError, match=r"set-000\.tar\.zst .*manifest.*--name"):
        convert(source, options)
    with pytest.raises(UsageError, match=r"--compress gzip: .*zstd"):
        replace(options, compress="gzip")


def other_zstd(options: ConversionOptions, shard: int) -> Manifest:
    """Rewrite one shard of the set with another compression level, as if by another zstd version;
    returns the new manifest."""
    manifest = read_manifest(options.out / "set.json")
    path = options.out / manifest.shards[shard].file
    samples = list(open_shards(str(path)))
    keys = [open_shards(str(path)).ref(at).key for at in range(len(samples))]
    with ShardWriter(path, frames=ZstdOptions(level=1)) as writer:
        for key, sample in zip(keys, samples, strict=True):
            writer.write(key, sample)
    infos: list[ShardInfo] = list(manifest.shards)
    assert writer.info is not None
    infos[shard] = writer.info
    other = replace(manifest, shards=tuple(infos))
    write_manifest(options.out / "set.json", other)
    return other


def test_a_repair_with_another_version_of_zstd(
    options: ConversionOptions, source: Numbered
) -> None:
    ours = convert(source, options)
    other = other_zstd(options, 2)
    assert other.shards[2].digest != ours.shards[2].digest
    (options.out / "set-002.tar.zst").unlink()
    assert convert_one(source, options, 2) == ours.shards[2]
    assert read_manifest(options.out / "set.json") == ours
    assert len(open_shards(str(options.out / "set.json"))) == 41


def test_a_repair_from_a_changed_source_replaces_nothing(options: ConversionOptions) -> None:
    convert(Numbered(45, BAD), options)
    before = made(options.out)
    path = options.out / "set-002.tar.zst"
    path.unlink()
    with pytest.raises(OcrError, match=r"set-002\.tar\.zst: .*manifest.*source has changed"):
        convert_one(Numbered(45, BAD | {22}), options, 2)
    assert not path.exists() and index_path(path).path.exists()
    assert made(options.out) == {k: v for k, v in before.items() if k != path.name}


def test_a_row_that_is_too_large_is_rejected(options: ConversionOptions) -> None:
    source = Numbered(45, salt="x" * (1 << 24))
    few = replace(options, start=0, limit=2, shard_samples=2, max_reject_fraction=1)
    manifest = convert(source, few)
    assert manifest.rejects["rows"] == 2
    (reason,) = manifest.rejects["reasons"]
    assert "compressed shard" in reason and "at most" in reason
