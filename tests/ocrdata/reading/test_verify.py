"""Verifying whole shards: every corrupted byte is found and its sample named."""

import json
import math
import os
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import DigestError, ShardError, SpecError
from ocrdata.planning.counting import count_shards
from ocrdata.reading.index_tar import index_tar
from ocrdata.reading.verify import ShardStatistics, _bins, find, quantile, verify_shards
from ocrdata.reading.view import open_shards
from ocrdata.shards.arrow import rows_digest
from ocrdata.shards.index import Index, IndexHeader, index_path, read_index, write_index
from ocrdata.shards.index_rows import IndexBuilder
from ocrdata.shards.manifest import read_manifest, shard_info, write_manifest
from ocrdata.shards.names import make_key
from ocrdata.shards.output import Written
from ocrdata.storage.sealed import seal
from ocrdata.tokens.counts import counts_path
from ocrdata.tokens.tokenizer import train_tokenizer
from tests.support.rows import flip, image, sample, write_set, write_shard, write_tar


def errors(spec: Path | str) -> list[ShardError]:
    return list(verify_shards(find(str(spec)), ShardStatistics()))


def only(spec: Path | str) -> ShardError:
    (found,) = errors(spec)
    return found


def test_intact_shards_and_their_statistics(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [20, 0, 5], ("PNG", "GIF"))
    contents, done = ShardStatistics(), []
    assert not list(verify_shards(find(str(tmp_path)), contents, done.append))
    sizes = [(tmp_path / f"x-00{number}.tar").stat().st_size for number in range(3)]
    assert done == sizes
    assert (contents.shards, contents.samples, contents.turns) == (3, 25, 25)
    assert contents.images == Counter(png=25, gif=25)
    assert contents.sources == Counter(numbers=25)
    assert contents.bytes == sum(sizes)
    assert contents.sample_bytes.total() == 25


def test_token_counts_are_verified_too(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [20, 5])
    tokenizer = train_tokenizer(["What is 1? It is 2."], 270)
    count_shards(open_shards(str(tmp_path / "x.json")), tokenizer)
    assert not errors(tmp_path / "x.json")
    path = counts_path(tmp_path / "x-000.tar", tokenizer.fingerprint).path
    other = counts_path(tmp_path / "x-001.tar", tokenizer.fingerprint).path
    flip(path, path.stat().st_size // 2)
    assert only(tmp_path / "x.json").shard == str(path)
    path.write_bytes(other.read_bytes())
    found = only(tmp_path / "x.json")
    assert found.shard == str(path) and "other samples" in str(found)


def test_lists_of_token_counts_are_verified_too(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [3, 0, 2])
    tokenizer = train_tokenizer(["What is 1? It is 2."], 270)
    count_shards(open_shards(str(tmp_path / "x.json")), tokenizer)
    path = tmp_path / f"x.tokens-{tokenizer.fingerprint}.json"
    whole, counts = path.read_bytes(), tmp_path / f"x-002.tokens-{tokenizer.fingerprint}.parquet"
    kept = counts.read_bytes()
    document = json.loads(whole)
    first, last = document["shards"]
    for entries, told in (
        ([first], "x-002.tar"),
        ([first, {**last, "rows_digest": "0" * 32}], "x-002.tar"),
        ([first, {**last, "digest": "0" * 32}], counts.name),
        ([first, {**last, "bytes": 5}], counts.name),
    ):
        path.write_text(json.dumps(seal({**document, "shards": entries})))
        found = only(tmp_path / "x.json")
        assert found.shard == str(path) and told in str(found) and "delete it" in str(found)
    path.write_text(json.dumps(seal({**document, "name": "y"})))
    assert " y " in str(only(tmp_path / "x.json"))
    path.write_bytes(whole[:-9])
    assert only(tmp_path / "x.json").shard == str(path)
    path.write_bytes(whole)
    counts.unlink()
    found = only(tmp_path / "x.json")
    assert found.shard == str(counts) and path.name in str(found)
    assert not errors(tmp_path / "x-000.tar")
    counts.write_bytes(kept)
    assert not errors(tmp_path / "x.json")


def test_slice_is_rejected(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [2])
    with pytest.raises(SpecError, match=f"{tmp_path}: .*slice"):
        find(f"{tmp_path}[:1]")


def test_every_flipped_byte_is_found_and_its_sample_named(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [4], ("PNG", "JPEG"))
    tar = tmp_path / "x-000.tar"
    index, rng = read_index(index_path(tar)), random.Random(1)
    size = tar.stat().st_size
    for at in [*rng.sample(range(size - 1024), 150), size - 1024, size - 1]:
        flip(tar, at, at % 8)
        found = errors(tmp_path)
        owner = [n for n in range(4) if 0 <= at - index.offsets[n] < index.sizes[n]]
        assert [error.key for error in found] == ([make_key(owner[0])] if owner else [""]), at
        assert str(found[0]).startswith(str(tar))
        flip(tar, at, at % 8)
    assert not errors(tmp_path)


def test_all_corrupted_samples_are_named(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [30, 30])
    index = read_index(index_path(tmp_path / "x-000.tar"))
    for position in (3, 7, 20):
        flip(tmp_path / "x-000.tar", list(index.members(position))[1].offset)
    flip(tmp_path / "x-000.tar", index.offsets[11] + 150)  # a header
    os.truncate(tmp_path / "x-001.tar", index.offsets[25] + 700)
    found = errors(tmp_path)
    keys = [make_key(number) for number in (3, 7, 11, 20, *range(55, 60))]
    assert [error.key for error in found if error.key] == keys
    rest = [str(error) for error in found if not error.key]
    assert len(rest) == 2
    size = (tmp_path / "x-001.tar").stat().st_size
    assert f" {size:,} bytes" in rest[0] and "index" in rest[0]
    assert "x-001.tar" in rest[1] and "byte" in rest[1]


def test_zeroed_swapped_truncated_and_appended_parts(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [6])
    tar = tmp_path / "x-000.tar"
    before, index = tar.read_bytes(), read_index(index_path(tar))
    start, size = index.offsets[2], index.sizes[2]
    tar.write_bytes(before[:start] + bytes(size) + before[start + size :])
    assert "zero" in str(only(tmp_path))
    assert only(tmp_path).key == make_key(2)
    other = index.offsets[3]
    assert index.sizes[3] == size
    swapped = before[:start] + before[other : other + size] + before[start:other]
    tar.write_bytes(swapped + before[other + size :])
    found = errors(tmp_path)
    assert [error.key for error in found] == [make_key(2), make_key(3)]
    assert [error.member for error in found] == [f"{make_key(n)}.json" for n in (3, 2)]
    assert all("index" in str(error) for error in found)
    tar.write_bytes(before[:-512])
    assert [error.key for error in errors(tmp_path)] == ["", ""]
    tar.write_bytes(before[:-1] + b"x")
    found = errors(tmp_path)
    assert [error.key for error in found] == [""] and "end" in str(found[0])
    tar.write_bytes(before + bytes(512))
    sizes = f" {len(before) + 512:,} bytes.* {len(before):,} .*index"
    assert re.search(sizes, str(errors(tmp_path)[0]))


def test_padding_is_checked(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [6])
    index = read_index(index_path(tmp_path / "x-000.tar"))
    flip(tmp_path / "x-000.tar", index.offsets[4] + index.sizes[4] - 1)
    found = only(tmp_path)
    assert found.shard.endswith("x-000.tar") and found.key == make_key(4)
    assert "padding" in str(found)


def test_modified_header_with_a_correct_checksum(tmp_path: Path) -> None:
    write_shard(tmp_path / "x-000.tar", [sample(0)])
    with (tmp_path / "x-000.tar").open("r+b") as file:
        block = bytearray(file.read(512))
        block[146] = ord("1")
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        file.seek(0)
        file.write(block)
    found = only(tmp_path)
    assert isinstance(found, DigestError) and found.shard.endswith("x-000.tar")
    assert "header" in str(found)


def test_corrupted_index(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [3])
    index_path(tmp_path / "x-000.tar").path.write_bytes(b"nothing")
    contents = ShardStatistics()
    found = list(verify_shards(find(str(tmp_path)), contents))
    assert [error.shard for error in found] == [str(index_path(tmp_path / "x-000.tar"))]
    assert contents.samples == 3  # counted from the tar itself
    flip(tmp_path / "x-000.tar", 3)
    assert [error.key for error in errors(tmp_path)] == ["", ""]


def test_index_of_another_tar(tmp_path: Path) -> None:
    write_set(tmp_path, "x", [3, 3])
    one, other = (index_path(tmp_path / f"x-00{number}.tar").path for number in range(2))
    one.write_bytes(other.read_bytes())
    found = errors(tmp_path)
    text = "\n".join(map(str, found))
    assert re.search("digest of the shard .*manifest", text)
    assert re.search("digest of the rows .*manifest", text)
    assert re.search(f"{re.escape(str(one))}: .*manifest", text)
    assert [error.key for error in found if error.key] == [make_key(n) for n in (3, 4, 5)]


def test_index_rows_that_contradict_the_tar(tmp_path: Path) -> None:
    for name, row in (("a", sample(0)), ("b", sample(0, ("GIF",)))):
        write_shard(tmp_path / f"{name}.tar", [row])
    tar = tmp_path / "a.tar"
    index = index_tar(tar)
    rows = index.table.to_pylist()
    rows[0]["turns"] = 5
    changed = index.table.from_pylist(rows, schema=index.table.schema)
    head = index.header
    header = IndexHeader(head.shard_size, head.shard_digest, 1, rows_digest(changed))
    write_index(index_path(tar), Index(changed, header))
    found = only(tar)
    assert found.key == make_key(0) and "turns" in str(found)


def test_shards_are_checked_against_their_manifest(tmp_path: Path) -> None:
    manifest = write_set(tmp_path, "x", [3, 3])
    write_shard(tmp_path / "x-001.tar", [sample(9)], start=9)
    found = [str(error) for error in errors(tmp_path)]
    assert any(re.search("samples .* 1, .* 3 .*manifest", line) for line in found)
    assert all("x-001" in line for line in found)
    index_path(tmp_path / "x-000.tar").path.unlink()
    assert re.search(r"x-000\.tar: .*index is missing", str(errors(tmp_path)[0]))
    assert read_manifest(tmp_path / "x.json") == manifest


def test_shards_with_a_manifest_must_have_our_layout(tmp_path: Path) -> None:
    manifest = write_set(tmp_path, "x", [2])
    one = sample(0)
    members = "000000000.json, 000000000.png"
    for files, message in (
        ([("000000000.png", one.images[0]), ("000000000.json", one.to_json())], members),
        ([("000000000.json", one.to_json()), ("000000000.jpg", one.images[0])], members),
        ([("000000002.json", b"{}"), ("000000001.json", b"{}")], "000000001: .*key of 9 digits"),
        ([("a.json", b"{}")], "sample a: .*key of 9 digits"),
    ):
        tar = write_tar(tmp_path / "x-000.tar", files)
        write_index(index_path(tar), index_tar(tar))
        write_manifest(tmp_path / "x.json", replace(manifest, shards=(shard_info(tar),)))
        assert re.search(message, str(only(tmp_path)))


def test_an_invalid_key_does_not_end_the_check(tmp_path: Path) -> None:
    manifest = write_set(tmp_path, "x", [2])
    long = "9" * 5_000  # more digits than int() reads
    keys = ["000000003", "abc", "000000002", "²" * 9, "000000004", long, long + "0"]
    tar = write_tar(tmp_path / "x-000.tar", [(f"{key}.json", b"{}") for key in keys])
    write_index(index_path(tar), index_tar(tar))
    write_manifest(tmp_path / "x.json", replace(manifest, shards=(shard_info(tar),)))
    assert [
        re.findall("sample ([^:]*):.*key of 9 digits", line) for line in map(str, errors(tmp_path))
    ] == [["abc"], ["000000002"], ["²" * 9]]


def test_foreign_tars(tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "photos.tar",
        [("README", b"1"), ("a.png", image("PNG")), ("NOTES", b"2"), ("a.txt", b"t"),
         ("c.bin", bytes(2 << 20)), ("LAST", b"3")],
    )  # fmt: skip
    assert not errors(tar)
    assert not index_path(tar).path.exists()  # verification writes nothing
    write_index(index_path(tar), index_tar(tar))
    assert not errors(tar)
    for at in (512, 600, 2048, 4 << 9, (2 << 20) + 3000):
        flip(tar, at)
        assert errors(tar), at
        flip(tar, at)
    index_path(tar).path.unlink()
    flip(tar, 3)
    assert re.search("checksum.* byte 0", str(only(tar)))


def test_members_missing_from_the_tar_or_the_index(tmp_path: Path) -> None:
    files = [("a.txt", b"1"), ("b.txt", b"2"), ("c.txt", b"3")]
    index = index_tar(write_tar(tmp_path / "x.tar", files))
    for gone in range(3):
        write_index(index_path(tmp_path / "x.tar"), index)
        write_tar(
            tmp_path / "x.tar", [("NOTE", f[1]) if n == gone else f for n, f in enumerate(files)]
        )
        found = only(tmp_path / "x.tar")
        assert found.member == files[gone][0] and "not in the tar" in str(found)
    for kept in ((0, 1), (1, 2), (0, 2)):
        names = [f if n in kept else ("NOTE", f[1]) for n, f in enumerate(files)]
        short = index_tar(write_tar(tmp_path / "x.tar", names))
        write_index(index_path(tmp_path / "x.tar"), short)
        write_tar(tmp_path / "x.tar", files)
        (missing,) = (f[0] for n, f in enumerate(files) if n not in kept)
        found = errors(tmp_path / "x.tar")
        assert [error.member for error in found] == [missing]


@settings(deadline=None)
@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=50), st.floats(0.01, 1))
def test_quantiles_are_within_a_tenth(values: list[int], share: float) -> None:
    found = quantile(Counter(_bins(np.array(values))), share)
    exact = sorted(values)[max(math.ceil(share * len(values) - 1e-9), 1) - 1]
    assert exact / 1.1 - 1 <= found <= exact * 1.1 + 1


def test_quantile_without_values() -> None:
    assert quantile(Counter(), 0.5) == 0


def test_other_fields_and_older_indexes_of_foreign_tars(tmp_path: Path) -> None:
    """Masks are counted, and an index that the next use would make again is not believed."""
    tar = write_tar(
        tmp_path / "x.tar",
        [
            ("a.jpg", image("JPEG")),
            ("a.seg.png", image("PNG")),
            ("a.txt", b"a"),
            ("b.SEG.png", image("PNG")),
            ("b.cls", b"1"),
        ],
    )
    fresh = index_tar(tar)
    row = fresh.row(0)
    builder = IndexBuilder()
    builder.add(row._replace(images=[row.images[0], row.images[0]]))
    builder.add(fresh.row(1))
    old = builder.finish(Written(fresh.header.shard_size, fresh.header.shard_digest))
    contents = ShardStatistics()
    for version, wrong in (("1.0", 0), ("1.2", 1)):
        write_index(index_path(tar), Index(old.table, replace(old.header, version=version)))
        contents = ShardStatistics()
        assert len(list(verify_shards(find(str(tar)), contents))) == wrong
        assert contents.unused == Counter({"seg.png": 2, "cls": 1})
        assert contents.images.total() == 1 + wrong
        assert read_index(index_path(tar)).header.version == version  # nothing is written
