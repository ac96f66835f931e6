from pathlib import Path

import pytest

from ocrdata.errors import DiskError, TrainError
from ocrtrain.run import batch_log, run_log
from ocrtrain.run.batch_log import BatchLog
from ocrtrain.run.run_log import RunLog
from ocrtrain.settings.config import Config
from ocrtrain.state.run_files import cut_lines, parse_line, read_lines
from tests.support.batches import batch

WHOLE = b'{"step": 0}\n{"step": 1, "a": 2}\n{"step": 2}\n'


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b'{"step": 1}', b'{"step": 1.0}\n', b'{"step": true}\n', b"[1]\n", b'"step"\n',
     b"\xff\n", b'{"step": 1e999}\n', b"[" * 100_000 + b"\n"],
)  # fmt: skip
def test_malformed_lines_are_not_parsed(line: bytes) -> None:
    assert parse_line(line) is None


def test_an_incomplete_last_line_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(WHOLE + b'{"step": 3')
    assert [line["step"] for line in read_lines(path)] == [0, 1, 2]
    cut_lines(path, lambda line: line["step"] < 2)
    assert path.read_bytes() == b"".join(WHOLE.splitlines(keepends=True)[:2])


def test_a_corrupted_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(WHOLE.replace(b'"a": 2', b'"a": \x82'))
    with pytest.raises(TrainError, match=r"x\.jsonl: line 2\b"):
        list(read_lines(path))
    with pytest.raises(TrainError, match=r"x\.jsonl: line 2\b"):
        cut_lines(path, lambda line: True)
    assert b"\x82" in path.read_bytes()


def test_corrupted_lines_after_the_last_one_kept_are_dropped(tmp_path: Path) -> None:
    """After a power failure, lines that were not fsynced may hold anything."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(WHOLE + bytes(100) + b'\n{"step": 5}\n')
    cut_lines(path, lambda line: line["step"] < 3)
    assert path.read_bytes() == WHOLE


def test_a_missing_file_stays_missing(tmp_path: Path) -> None:
    cut_lines(tmp_path / "x.jsonl", lambda line: True)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_closing_does_not_hide_the_error_of_a_full_disk(tmp_path: Path) -> None:
    """Closing flushes again and fails again; only the error of `write` is raised."""
    for name in (run_log.FILE, batch_log.FILE):
        (tmp_path / name).symlink_to("/dev/full")
    log = RunLog(tmp_path, Config(wandb="off"))
    with pytest.raises(DiskError, match="no space left on the disk"):
        log.write(0, {"train/loss": 1.0})
    log.close()
    batches = BatchLog(tmp_path, samples=False)
    with pytest.raises(DiskError, match="no space left on the disk"):
        batches.write(batch(0).summary)
    batches.close()
