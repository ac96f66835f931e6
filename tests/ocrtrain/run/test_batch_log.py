"""`batches.jsonl`: one line a step, cut back when a run is resumed, checked when read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ocrdata.errors import TrainError
from ocrtrain.run.batch_log import FILE, BatchLog, cut_back, identity_at, newest
from tests.support.batches import batch


def write(run: Path, steps: range, *, samples: bool = False) -> None:
    log = BatchLog(run, samples=samples)
    for step in steps:
        log.write(batch(step).summary)
    log.sync()
    log.close()


def lines(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / FILE).read_text().splitlines()]


def test_every_step_has_a_line(tmp_path: Path) -> None:
    write(tmp_path, range(4))
    assert [line["step"] for line in lines(tmp_path)] == [0, 1, 2, 3]
    assert lines(tmp_path)[2] == {"step": 2, "identity": batch(2).identity}
    assert identity_at(tmp_path, 2) == batch(2).identity
    assert identity_at(tmp_path, 4) == ""


def test_the_newest_line_is_the_last_complete_one(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    write(tmp_path, range(4))
    assert newest(tmp_path) == (3, batch(3).identity)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"step": 4, "iden')
    assert newest(tmp_path) == (3, batch(3).identity)


def test_samples_are_recorded_on_request(tmp_path: Path) -> None:
    write(tmp_path, range(1), samples=True)
    (line,) = lines(tmp_path)
    assert line["rows"] == [[["charts", "charts-000.tar", f"{at:09d}"]] for at in range(6)]


@pytest.mark.parametrize("step", [0, 2, 9])
def test_a_resume_writes_what_an_unbroken_run_would(tmp_path: Path, step: int) -> None:
    write(tmp_path, range(5))
    whole = (tmp_path / FILE).read_bytes()
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"step": 5, "iden')
    cut_back(tmp_path, step)
    assert [line["step"] for line in lines(tmp_path)] == list(range(min(step, 5)))
    write(tmp_path, range(min(step, 5), 5))
    assert (tmp_path / FILE).read_bytes() == whole


def test_a_missing_file_has_no_lines(tmp_path: Path) -> None:
    cut_back(tmp_path, 3)
    assert identity_at(tmp_path, 0) == ""
    assert not list(tmp_path.iterdir())


def test_a_removed_line_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, range(5))
    path = tmp_path / FILE
    kept = path.read_text().splitlines(keepends=True)
    path.write_text("".join(kept[:2] + kept[3:]))
    assert identity_at(tmp_path, 3) == batch(3).identity
    with pytest.raises(TrainError, match=r"batches\.jsonl: line 3\b.*\bstep 3\b.*\bstep 2\b"):
        identity_at(tmp_path, 2)


def test_bytes_that_are_not_text_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, range(3))
    path = tmp_path / FILE
    data = bytearray(path.read_bytes())
    data[data.index(b"identity") - 3] = 0xFF
    path.write_bytes(data)
    with pytest.raises(TrainError, match=r"batches\.jsonl: line 1\b"):
        identity_at(tmp_path, 2)
    with pytest.raises(TrainError, match=r"batches\.jsonl: line 1\b"):
        cut_back(tmp_path, 2)


def test_a_damaged_line_is_an_error_and_an_incomplete_last_line_is_not(tmp_path: Path) -> None:
    write(tmp_path, range(3))
    path = tmp_path / FILE
    whole = path.read_text()
    path.write_text(whole[:-4])
    assert identity_at(tmp_path, 2) == ""
    path.write_text(whole.replace('"step": 1', '"step": x'))
    assert identity_at(tmp_path, 0) == batch(0).identity
    with pytest.raises(TrainError, match=r"batches\.jsonl: line 2\b"):
        identity_at(tmp_path, 2)
