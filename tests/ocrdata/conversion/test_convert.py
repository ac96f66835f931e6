from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ocrdata.conversion.convert import convert
from ocrdata.conversion.options import ConversionOptions
from ocrdata.errors import DiskError, OcrError, SourceError, UsageError
from ocrdata.reading.view import open_shards
from ocrdata.runtime.progress import Progress
from ocrdata.shards.manifest import read_manifest
from ocrdata.shards.names import make_key
from ocrdata.storage.locks import Lock
from tests.support.numbered import Numbered, reads
from tests.support.shardcommand import made

BAD = frozenset({3, 6, 21, 24})


@pytest.fixture
def options(tmp_path: Path) -> ConversionOptions:
    return ConversionOptions(tmp_path / "out", "set", shard_samples=10, max_reject_fraction=0.2)


@pytest.fixture
def source(tmp_path: Path) -> Numbered:
    return Numbered(45, BAD, log=tmp_path / "log")


def test_every_row_is_a_sample_or_a_reject(options: ConversionOptions, source: Numbered) -> None:
    manifest = convert(source, options)
    assert [shard.file for shard in manifest.shards] == [f"set-{n:03d}.tar" for n in range(5)]
    assert [shard.samples for shard in manifest.shards] == [8, 10, 8, 10, 5]
    good = [row for row in range(45) if row not in BAD]
    shards = open_shards(str(options.out / "set.json"))
    assert [shards.ref(n).key for n in range(len(shards))] == [make_key(row) for row in good]
    wanted = dict(source.rows(0, 45))
    assert [shards[n] for n in range(len(shards))] == [wanted[row] for row in good]
    lines = (options.out / "set.rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines] == sorted(BAD)
    assert [json.loads(line)["reason"][:20] for line in lines] == [
        "message 1: lone surr", "image 0: not an imag", "message 1: no assist", "row 24 is bad",
    ]  # fmt: skip
    assert manifest == read_manifest(options.out / "set.json")
    assert manifest.rejects["rows"] == 4 and manifest.rejects["reasons"]["row N is bad"] == 1
    image = wanted[1].images[0]  # type: ignore[union-attr]  # row 1 is not rejected
    assert manifest.totals == {
        "rows": 45,
        "samples": 41,
        "images": sum(row % 3 for row in good),
        "turns": sum(1 + row % 2 for row in good),
        "bytes": manifest.bytes,
        "image_bytes": sum(row % 3 for row in good) * len(image),
        "damaged_jpegs": 0,
    }
    assert manifest.licence == "none"
    assert manifest.provenance == {
        "format": "numbered", "salt": "", "rows": 45, "start": 0, "stop": 45, "shard_samples": 10,
    }  # fmt: skip


def test_only_the_set_is_left_behind(options: ConversionOptions) -> None:
    convert(Numbered(45), options)
    assert sorted(made(options.out)) == sorted(
        [f"set-{n:03d}{end}" for n in range(5) for end in (".tar", ".index.parquet")] + ["set.json"]
    )


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_files(
    options: ConversionOptions, source: Numbered, workers: int
) -> None:
    convert(source, options)
    many = replace(options, out=options.out.parent / "many", workers=workers)
    convert(source, many)
    assert made(many.out) == made(options.out)


def test_rejects_do_not_change_other_shards(options: ConversionOptions) -> None:
    convert(Numbered(45, BAD), options)
    other = replace(options, out=options.out.parent / "other")
    convert(Numbered(45, BAD - {3, 6}), other)
    first, second = made(options.out), made(other.out)
    assert first["set-000.tar"] != second["set-000.tar"]
    for number in range(1, 5):
        assert first[f"set-{number:03d}.tar"] == second[f"set-{number:03d}.tar"]


def test_a_slice_has_the_same_whole_shards(options: ConversionOptions) -> None:
    convert(Numbered(45), options)
    part = replace(options, out=options.out.parent / "part", start=15, stop=35)
    manifest = convert(Numbered(45), part)
    assert [(shard.file, shard.samples) for shard in manifest.shards] == [
        ("set-001.tar", 5), ("set-002.tar", 10), ("set-003.tar", 5),
    ]  # fmt: skip
    assert made(part.out)["set-002.tar"] == made(options.out)["set-002.tar"]
    assert manifest.provenance["start"] == 15 and manifest.provenance["stop"] == 35
    limited = replace(part, out=options.out.parent / "limited", stop=None, limit=20)
    assert convert(Numbered(45), limited) == manifest
    assert made(limited.out) == made(part.out)
    more = replace(part, out=options.out.parent / "more", stop=None, limit=2_000)
    assert convert(Numbered(45), more).provenance["stop"] == 45


def test_a_conversion_resumes_after_the_source_failed(
    options: ConversionOptions, source: Numbered, tmp_path: Path
) -> None:
    convert(source, replace(options, out=tmp_path / "whole"))
    with pytest.raises(SourceError, match="does not deliver"):
        convert(replace(source, breaks_at=37), options)
    assert not (options.out / "set.json").exists()
    assert not [name for name in made(options.out) if name.endswith(".tmp")]
    assert sorted(path.name for path in options.out.glob("*.tar")) == [
        "set-000.tar", "set-001.tar", "set-002.tar",
    ]  # fmt: skip
    (tmp_path / "log").unlink()
    shown = io.StringIO()
    convert(source, options, Progress(shown))
    assert reads(tmp_path / "log") == [(30, 45)]
    assert "30 of 45 rows" in shown.getvalue()
    assert made(options.out) == made(tmp_path / "whole")


def test_lost_shards_of_an_unfinished_set_are_recreated(
    options: ConversionOptions, source: Numbered, tmp_path: Path
) -> None:
    convert(source, replace(options, out=tmp_path / "whole"))
    with pytest.raises(SourceError):
        convert(replace(source, breaks_at=44), options)
    (options.out / "set-001.index.parquet").unlink()
    (options.out / "set-003.tar").write_bytes(b"")
    (tmp_path / "log").unlink()
    convert(source, options)
    assert reads(tmp_path / "log") == [(10, 20), (30, 45)]
    assert made(options.out) == made(tmp_path / "whole")


def test_a_complete_set_is_not_touched(
    options: ConversionOptions, source: Numbered, tmp_path: Path
) -> None:
    manifest = convert(source, options)
    before = {path: path.stat().st_mtime_ns for path in options.out.iterdir()}
    (tmp_path / "log").unlink()
    progress = Progress()
    assert convert(source, options, progress) == manifest
    assert progress.shards == progress.rows == 0
    assert reads(tmp_path / "log") == []
    assert {path: path.stat().st_mtime_ns for path in options.out.iterdir()} == before


def test_lost_shards_of_a_complete_set_are_recreated(
    options: ConversionOptions, source: Numbered
) -> None:
    manifest = convert(source, options)
    whole = made(options.out)
    (options.out / "set-001.tar").unlink()
    (options.out / "set-002.index.parquet").unlink()
    (options.out / "set-004.tar").write_bytes(b"")
    progress = Progress()
    assert convert(source, options, progress) == manifest
    assert progress.shards == 3
    assert made(options.out) == whole


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"shard_samples": 20}, "shard_samples was 10, now 20"),
        ({"start": 5}, "start was 0, now 5"),
        ({"limit": 40}, "stop was 45, now 40"),
        ({"salt": "!"}, "salt was '', now '!'"),
        ({"extra": {"commit": "1"}}, "commit was None, now '1'"),
    ],
)
def test_shards_of_another_conversion_are_not_mixed_in(
    options: ConversionOptions,
    source: Numbered,
    complete: bool,
    changed: dict[str, Any],
    difference: str,
) -> None:
    if complete:
        convert(source, options)
    else:
        with pytest.raises(SourceError):
            convert(replace(source, breaks_at=25), options)
    before = made(options.out)
    of_source = {key: value for key, value in changed.items() if key in ("salt", "extra")}
    of_options = {key: value for key, value in changed.items() if key not in of_source}
    with pytest.raises(UsageError, match=difference) as caught:
        convert(replace(source, **of_source), replace(options, **of_options))
    assert "\n" not in str(caught.value)
    assert made(options.out) == before


def test_a_conversion_without_a_finished_shard_may_be_replaced(
    options: ConversionOptions, source: Numbered
) -> None:
    with pytest.raises(SourceError):
        convert(replace(source, breaks_at=0), options)
    assert made(options.out) == {}
    again = convert(replace(source, salt=9), options)
    assert again == convert(replace(source, salt=9), replace(options, out=options.out / "fresh"))


def test_shards_of_unknown_origin_are_an_error(
    options: ConversionOptions, source: Numbered
) -> None:
    convert(source, options)
    (options.out / "set.json").unlink()
    with pytest.raises(UsageError, match=r"set-000\.tar .*manifest.*--name"):
        convert(source, options)


def test_too_many_rejects_stop_the_conversion_at_once(
    options: ConversionOptions, tmp_path: Path
) -> None:
    source = Numbered(400, frozenset(range(0, 200, 5)), log=tmp_path / "log")
    strict = replace(options, max_reject_fraction=0.05)
    with pytest.raises(OcrError) as caught:
        convert(source, strict)
    message = str(caught.value)
    assert message.startswith("set: 22 of 400 rows") and "--max-reject-fraction 0.05" in message
    assert "image 0: not an image" in message and "row 0)" in message
    assert caught.value.exit_status == 1
    assert not (options.out / "set.json").exists()
    assert not (options.out / "set.rejects.jsonl").exists()
    assert len(list(options.out.glob("*.tar"))) == 11
    # The second time it fails without reading any rows.
    (tmp_path / "log").unlink()
    with pytest.raises(OcrError, match="rejected"):
        convert(source, strict)
    assert reads(tmp_path / "log") == []
    assert convert(source, options).rejects["rows"] == 40


def test_the_largest_allowed_fraction_of_rejects(options: ConversionOptions) -> None:
    source = Numbered(100, frozenset({0, 50}))
    assert convert(source, replace(options, max_reject_fraction=0.02)).rejects["rows"] == 2


def test_a_shard_whose_rows_are_all_rejected_is_empty(options: ConversionOptions) -> None:
    source = Numbered(30, frozenset(range(10, 20)))
    manifest = convert(source, replace(options, max_reject_fraction=0.5))
    assert [shard.samples for shard in manifest.shards] == [10, 0, 10]
    assert len(open_shards(str(options.out / "set-<000..002>.tar"))) == 20


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_over_the_size_limit_leaves_nothing(
    options: ConversionOptions, source: Numbered, workers: int
) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))
    try:
        with pytest.raises(DiskError, match=r"set-00\d\.tar: .*size limit"):
            convert(source, replace(options, workers=workers))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert made(options.out) == {}
    convert(source, options)


def test_a_disk_that_is_too_small_is_an_error_before_anything_is_written(
    options: ConversionOptions,
) -> None:
    with pytest.raises(DiskError, match=r"out: .*\d+\.\d TB .*needed.* free.*--out.*--limit"):
        convert(Numbered(45, bytes_each=1 << 55), options)
    assert not list(options.out.glob("*.tar"))


def test_an_output_that_another_process_writes(
    options: ConversionOptions, source: Numbered
) -> None:
    options.out.mkdir()
    with (
        Lock(options.out / ".set.lock", "a set"),
        pytest.raises(UsageError, match="another process"),
    ):
        convert(source, options)


def test_a_file_where_the_folder_should_be(options: ConversionOptions, source: Numbered) -> None:
    options.out.write_text("")
    with pytest.raises(DiskError, match=r"out: .*file.* folder"):
        convert(source, options)


def test_old_temporary_files_of_this_set_alone_are_removed(
    options: ConversionOptions, source: Numbered
) -> None:
    options.out.mkdir()
    mine = [".set-004.tar.tmp", ".set.json.tmp", ".set-001.index.parquet.tmp"]
    others = [".set-more-000.tar.tmp", ".other.json.tmp", ".000.json.tmp"]
    for name in mine + others:
        (options.out / name).write_text("")
    convert(source, options)
    hidden = sorted(path.name for path in options.out.glob(".*"))
    assert hidden == sorted(others)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "a.b"}, "--name 'a.b': .*letters, digits, _ and -"),
        ({"name": ""}, "--name ''"),
        ({"name": "a/b"}, "--name 'a/b'"),
        ({"shard_samples": 0}, "--shard-samples 0: .*1 or more"),
        ({"workers": 0}, "--workers 0: .*1 or more"),
        ({"start": -1}, "--start -1: .*0 or more"),
        ({"stop": 0}, "--stop 0: .*1 or more"),
        ({"limit": 0}, "--limit 0: .*1 or more"),
        ({"stop": 3, "limit": 3}, "--stop and --limit"),
        ({"max_reject_fraction": 1.5}, "--max-reject-fraction 1.5: .*0 .*1"),
    ],
)
def test_invalid_options(options: ConversionOptions, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        replace(options, **values)


@pytest.mark.parametrize("values", [{"start": 45}, {"stop": 46}, {"start": 9, "stop": 9}])
def test_empty_slices(options: ConversionOptions, source: Numbered, values: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"rows \[\d+:\d+\]: .*45 rows"):
        convert(source, replace(options, **values))
    with pytest.raises(UsageError, match=r"rows \[0:0\]: .* 0 rows"):
        convert(Numbered(0), options)
