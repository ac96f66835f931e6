from pathlib import Path

import pytest

from ocrdata.errors import DiskError, TrainError
from ocrtrain.run import run_log
from ocrtrain.run.run_log import RunLog
from ocrtrain.run.sinks import Sinks
from ocrtrain.settings.config import Config


def written(run: Path) -> list[dict[str, float]]:
    log = RunLog(run, Config(wandb="off"))
    log.write(0, {"val/loss": 5.0})
    for step in range(4):
        log.write(step, {"train/loss": 4.0 - step})
    log.write(4, {"val/loss": 1.0})
    log.write(4, {"train/loss": 0.5})
    log.sync()
    log.close()
    return run_log.read(run)


def test_logged_values_are_read_back(tmp_path: Path) -> None:
    lines = written(tmp_path)
    assert lines[0] == {"step": 0, "val/loss": 5.0}
    assert lines[-1] == {"step": 4, "train/loss": 0.5}
    assert len(lines) == 7


def test_values_that_are_not_finite_are_null(tmp_path: Path) -> None:
    log = RunLog(tmp_path, Config(wandb="off"))
    log.write(0, {"train/loss": float("nan"), "train/grad_norm": float("inf")})
    log.close()
    assert run_log.read(tmp_path) == [{"step": 0, "train/loss": None, "train/grad_norm": None}]


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        (4, [(0, "val"), (0, "train"), (1, "train"), (2, "train"), (3, "train"), (4, "val")]),
        (2, [(0, "val"), (0, "train"), (1, "train")]),
        (0, []),
    ],
)
def test_the_log_is_cut_back_to_a_checkpoint(
    step: int, kept: list[tuple[int, str]], tmp_path: Path
) -> None:
    written(tmp_path)
    run_log.cut_back(tmp_path, step)
    found = [(line["step"], next(iter(set(line) - {"step"})).split("/")[0]) for line in
             run_log.read(tmp_path)]  # fmt: skip
    assert found == kept


def test_an_incomplete_last_line_is_removed(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / run_log.FILE
    whole = path.read_text()
    for incomplete in ('{"step": 5, "train/lo', "5", "{}"):
        path.write_text(whole + incomplete)
        run_log.cut_back(tmp_path, 100)
        assert [line["step"] for line in run_log.read(tmp_path)] == [0, 0, 1, 2, 3, 4, 4]


def test_a_missing_log_is_not_cut_back_and_cannot_be_read(tmp_path: Path) -> None:
    run_log.cut_back(tmp_path, 5)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TrainError, match=r"metrics\.jsonl"):
        run_log.read(tmp_path)


def test_a_run_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="file"):
        RunLog(tmp_path / "file", Config(wandb="off"))


def test_what_is_not_finite_is_left_out_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[int, dict[str, float]]] = []
    monkeypatch.setattr(Sinks, "write", lambda self, step, values: found.append((step, values)))
    log = RunLog(tmp_path, Config(log_to=()))
    log.write(3, {"train/loss": float("nan"), "train/lr": 0.5})
    log.close()
    assert found == [(3, {"train/lr": 0.5})]
