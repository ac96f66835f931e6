"""Skipped samples are recorded before the step that skips them, and replayed."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from ocrdata.errors import TrainError
from ocrtrain.data.skipped import FILE, SkippedSamples
from tests.support.batches import SKIPPED_BECAUSE, batch


def test_recorded_samples_are_loaded_again(tmp_path: Path) -> None:
    first = SkippedSamples(skip=True, limit=5)
    first.record(tmp_path, batch(3, 1, 4).summary)
    first.record(tmp_path, batch(7, 1).summary)
    first.record(tmp_path, batch(7, 1).summary)  # the same step again, as after a kill: nothing new
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert [(line["step"], line["position"], line["key"]) for line in lines] == [
        (3, 1, "000000001"), (3, 4, "000000004"), (7, 1, "000000001"),
    ]  # fmt: skip
    again = SkippedSamples(limit=3)
    again.load(tmp_path)
    assert len(again) == len(first) == 3
    assert again.reason((3, "charts", 4)) == SKIPPED_BECAUSE
    assert again.reason((4, "charts", 4)) == again.reason((3, "other", 4)) == ""


def test_a_record_is_durable_before_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The complete file is synced, and once its folder: a record must survive a power cut."""
    synced: list[tuple[int, int]] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        status = os.fstat(handle)
        synced.append((status.st_ino, status.st_size if stat.S_ISREG(status.st_mode) else 0))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    skipped, folder = SkippedSamples(skip=True, limit=9), (tmp_path.stat().st_ino, 0)
    for step, after in ((3, [folder]), (4, [])):
        skipped.record(tmp_path, batch(step, 1).summary)
        status = (tmp_path / FILE).stat()
        assert synced == [(status.st_ino, status.st_size), *after]
        synced.clear()


def test_a_batch_without_skipped_samples_writes_nothing(tmp_path: Path) -> None:
    skipped = SkippedSamples(skip=True)
    skipped.record(tmp_path, batch(0).summary)
    skipped.load(tmp_path)
    assert not list(tmp_path.iterdir()) and len(skipped) == 0


def test_more_than_the_limit_is_recorded_and_stops_the_run(tmp_path: Path) -> None:
    skipped = SkippedSamples(skip=True, limit=2)
    skipped.record(tmp_path, batch(0, 1, 2).summary)
    limit = r"bad\.jsonl: .*\b3 times.*--max-bad is 2\b"
    wanted = rf"^step 1: charts-000\.tar: sample 000000003: {SKIPPED_BECAUSE}\n.*{limit}"
    with pytest.raises(TrainError, match=wanted):
        skipped.record(tmp_path, batch(1, 3).summary)
    # Resuming with the same limit fails again; a larger one helps, and reading always works.
    with pytest.raises(TrainError, match=limit):
        SkippedSamples(skip=True, limit=2).load(tmp_path)
    SkippedSamples(skip=True, limit=3).load(tmp_path)
    SkippedSamples().replay(tmp_path)
    assert len((tmp_path / FILE).read_text().splitlines()) == 3


def test_an_incomplete_last_line_is_removed(tmp_path: Path) -> None:
    SkippedSamples(skip=True, limit=9).record(tmp_path, batch(0, 1, 2).summary)
    path = tmp_path / FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    found = SkippedSamples(limit=2)
    found.load(tmp_path)
    assert len(found) == 1
    assert path.read_bytes() == whole[: whole.index(b"\n") + 1]


def test_replaying_repairs_nothing(tmp_path: Path) -> None:
    SkippedSamples(skip=True, limit=9).record(tmp_path, batch(0, 1, 2).summary)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-5])
    incomplete = path.read_bytes()
    found = SkippedSamples()
    found.replay(tmp_path)
    assert (len(found), path.read_bytes()) == (1, incomplete)
    path.write_bytes(b"\xff\n")
    with pytest.raises(TrainError, match=r"bad\.jsonl: line 1\b"):
        found.replay(tmp_path)


@pytest.mark.parametrize("line", ["nonsense", "{}", "[]", '{"step": "x"}', "\x00"])
def test_a_damaged_line_is_an_error(tmp_path: Path, line: str) -> None:
    (tmp_path / FILE).write_text(line + "\n")
    with pytest.raises(TrainError, match=r"bad\.jsonl: line 1\b"):
        SkippedSamples().load(tmp_path)
