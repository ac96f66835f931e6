"""Each kind of file damaged a few times in each way (a thousand times in `make torture`), and tests
of the harness itself."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from ocrdata.errors import DigestError, OcrError, ShardError
from ocrdata.reading.view import open_shards
from ocrdata.shards.index import index_path
from ocrdata.shards.manifest import Manifest, write_manifest
from tests.support import fault
from tests.support.fault import BAD, Reading, Target, cases, outcome, run
from tests.support.faultmatrix import MATRIX
from tests.support.faulttargets import SHARD, TARGETS, make_counts, make_set, read_counted, read_set
from tests.support.rows import sample, write_shard

CASES = 6


@pytest.mark.parametrize("target", MATRIX, ids=lambda target: target.name)
def test_a_few_cases_of_each_kind_of_damage(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCR_SHARDS_CACHE", str(tmp_path / "cache"))
    target.make(tmp_path)
    for kind in target.kinds:
        for number, what, detail in cases(target, tmp_path, kind, count=CASES):
            assert what not in BAD, f"{kind}, case {number}: {what}: {detail}"


def reader(value: object) -> Target:
    """A target whose reader returns, or raises, `value`."""

    def read(_: Path) -> Reading:
        if isinstance(value, BaseException):
            raise value
        assert isinstance(value, dict)
        return value

    return replace(TARGETS[0], read=read, place="x-000", by_sample=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": 1, "b": 2}, "original data"),
        ({"a": 1, "b": 3}, "wrong data"),
        ({"a": 1}, "wrong data"),
        ({"a": 1, "b": 2, "c": 3}, "wrong data"),
        ({"a": ShardError("x-000", "no", key="a"), "b": 3}, "wrong data"),
        ({"a": ShardError("x-000", "no", key="a"), "b": 2}, "error names sample"),
        ({"a": ShardError("x-000", "no", key="b"), "b": 2}, "error names neither"),
        ({"a": ShardError("x-000", "no"), "b": 2}, "error names neither"),
        (ShardError("x-000", "no"), "error names file"),
        (OcrError("no"), "error names neither"),
        (ValueError("no"), "crash"),
    ],
)
def test_outcomes_are_classified(value: object, expected: str) -> None:
    assert outcome(reader(value), Path(), {"a": 1, "b": 2})[0] == expected


def test_a_hang_is_interrupted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def forever(_: Path) -> Reading:
        while True:
            time.monotonic()

    monkeypatch.setattr(fault, "CASE_SECONDS", 1)
    make_set(tmp_path)
    good, first = read_set(tmp_path), []

    def read(folder: Path) -> Reading:
        return forever(folder) if first else (first.append(1) or good)

    target = replace(TARGETS[0], read=read)
    assert [what for _, what, _ in cases(target, tmp_path, "flip", count=1)] == ["hang"]


def test_a_child_process_gives_the_same_outcomes(tmp_path: Path) -> None:
    target = TARGETS[0]
    target.make(tmp_path)
    outcomes = [what for _, what, _ in cases(target, tmp_path, "flip", count=10)]
    assert run(target, tmp_path, "flip", 10).counts == Counter(outcomes)


@pytest.mark.parametrize("with_manifest", [True, False])
def test_an_old_index_with_a_new_shard(tmp_path: Path, with_manifest: bool) -> None:
    """Both shards have the same size, so only the bytes differ; also a new index with the old
    manifest."""
    tar = tmp_path / SHARD
    old = write_shard(tar, [sample(number, ()) for number in range(10, 15)])
    if with_manifest:
        write_manifest(tmp_path / "x.json", Manifest("x", (old,)))
    index = index_path(tar).path.read_bytes()
    new = write_shard(tar, [sample(number, ()) for number in range(20, 25)])
    assert new.bytes == old.bytes
    if with_manifest:
        with pytest.raises(ShardError, match=r"x-000.* index .*manifest"):
            open_shards(str(tar))[0]
    index_path(tar).path.write_bytes(index)
    shards = open_shards(str(tar))
    for at in range(len(shards)):
        with pytest.raises(DigestError, match=f"{SHARD}: sample {at:09d}: member {at:09d}.json"):
            shards[at]


def test_old_counts_with_a_new_index(tmp_path: Path) -> None:
    make_counts(tmp_path)
    (tmp_path / "x.json").unlink()
    write_shard(tmp_path / SHARD, [sample(number) for number in range(12)])
    with pytest.raises(ShardError, match=r"x-000\.tokens-.*: .*other samples"):
        read_counted(tmp_path)


def test_two_shards_with_swapped_names(tmp_path: Path) -> None:
    """Tar and index are swapped together, so only the manifest reveals it."""
    make_set(tmp_path)
    for path, other in ((SHARD, "x-001.tar"), ("x-000.index.parquet", "x-001.index.parquet")):
        (tmp_path / path).rename(tmp_path / "between")
        (tmp_path / other).rename(tmp_path / path)
        (tmp_path / "between").rename(tmp_path / other)
    with pytest.raises(ShardError, match=r"x-00[01].*manifest"):
        open_shards(str(tmp_path))


def test_a_footer_whose_key_range_is_not_text_is_an_ocr_error(tmp_path: Path) -> None:
    """Case 238 of the thousand flips: the ends of the key range are bytes instead of text."""
    target = next(target for target in MATRIX if target.name == "tar.zst index")
    target.make(tmp_path)
    found = list(cases(target, tmp_path, "flip", first=238, count=239))
    assert [(number, what) for number, what, _ in found] == [(238, "error names file")]
