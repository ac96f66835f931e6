"""A run resumes only from its own checkpoints, with its own record."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ocrdata.errors import TrainError, UsageError
from ocrtrain.data import skipped
from ocrtrain.run import batch_log
from ocrtrain.run import launch as module
from ocrtrain.run.launch import train
from ocrtrain.state import checkpoint
from tests.support.data import small_config
from tests.support.streams import damaged


@pytest.fixture(scope="module")
def stopped(inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stopped runs: two that differ in their seed only, and one that skipped a sample."""
    home = tmp_path_factory.mktemp("stopped")
    spec = damaged(inputs, home, 17) + "[:48]"
    configs = {
        "one": small_config(inputs, home / "one", stop_at=6),
        "two": small_config(inputs, home / "two", stop_at=4, seed=7),
        "bad": small_config(inputs, home / "bad", stop_at=11, shards=(spec,), bad_samples="skip"),
    }
    for config in configs.values():
        assert train(config) == 0
    return home


def resume(inputs: dict[str, str], run: Path, **settings: Any) -> int:
    return train(small_config(inputs, run, **settings), resume=True)


def test_the_checkpoint_of_another_run_is_refused(
    inputs: dict[str, str], stopped: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(stopped / "two", tmp_path / "two"))
    [foreign] = checkpoint.complete_checkpoints(stopped / "one")[-1:]
    shutil.copytree(foreign, run / "checkpoints" / foreign.name)
    before = {path: path.read_bytes() for path in run.rglob("*.json*")}
    with pytest.raises(TrainError, match=r"step_000006\b.*--seed"):
        resume(inputs, run, seed=7)
    assert {path: path.read_bytes() for path in run.rglob("*.json*")} == before


def test_a_checkpoint_renamed_to_another_step_is_refused(
    inputs: dict[str, str], stopped: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(stopped / "two", tmp_path / "two"))
    [last] = checkpoint.complete_checkpoints(run)[-1:]
    last.rename(last.with_name("step_000009"))
    with pytest.raises(TrainError, match=r"step_000009.*\bstep 4\b"):
        resume(inputs, run, seed=7)


@pytest.mark.parametrize("lost", ["all", "the last"])
def test_a_batch_log_that_ends_before_the_checkpoint_is_refused(
    inputs: dict[str, str], stopped: Path, tmp_path: Path, lost: str
) -> None:
    run = Path(shutil.copytree(stopped / "two", tmp_path / "two"))
    path = run / batch_log.FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"" if lost == "all" else b"".join(lines[:-1]))
    with pytest.raises(TrainError, match=r"batches\.jsonl .*\bnone .*\bstep 3\b"):
        resume(inputs, run, seed=7)


@pytest.mark.parametrize("lost", ["the file", "a line", "its newline"])
def test_a_record_of_skipped_samples_that_is_incomplete_is_refused(
    inputs: dict[str, str], stopped: Path, tmp_path: Path, lost: str
) -> None:
    run = Path(shutil.copytree(stopped / "bad", tmp_path / "bad"))
    path = run / skipped.FILE
    whole = path.read_bytes()
    assert whole.endswith(b"\n")
    path.write_bytes({"the file": b"", "a line": whole[:-9], "its newline": whole[:-1]}[lost])
    settings = {"shards": (f"{stopped}/squares-*.tar[:48]",), "bad_samples": "skip"}
    if lost == "its newline":  # the line's checksum says that it is complete
        assert resume(inputs, run, **settings) == 0
        assert path.read_bytes() == whole
        return
    with pytest.raises(TrainError, match=r"\b[1-9]\d* samples were skipped .*bad\.jsonl .*\b0\b"):
        resume(inputs, run, **settings)


def test_a_run_that_started_while_shards_were_opened_is_noticed(
    inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was checked before taking the lock is checked again under it."""
    first, second = (small_config(inputs, tmp_path / "run", stop_at=2, seed=n) for n in (1, 2))
    opened = module.open_sources

    def slowly(config: object) -> object:
        monkeypatch.setattr(module, "open_sources", opened)
        assert train(first) == 0
        return opened(config)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "open_sources", slowly)
    with pytest.raises(UsageError, match=r"run already contains a run.*--out"):
        train(second)

    def later(config: object) -> object:
        monkeypatch.setattr(module, "open_sources", opened)
        assert train(small_config(inputs, tmp_path / "run", seed=1, stop_at=4), resume=True) == 0
        return opened(config)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "open_sources", later)
    with pytest.raises(UsageError, match=r"run: another process .*--resume"):
        train(small_config(inputs, tmp_path / "run", seed=1), resume=True)
