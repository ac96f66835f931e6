"""SIGKILL at eight points of a run; `make torture` tries a hundred."""

from pathlib import Path

import pytest

from tests.support.kill import spread
from tests.support.trainkill import Trainer


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return Trainer(tmp_path_factory.mktemp("kill"))


@pytest.mark.timeout(600)
def test_a_run_killed_anywhere_and_resumed_is_bit_identical(trainer: Trainer) -> None:
    found = trainer.points
    assert any(point.startswith("fsync") for point in found)
    assert any(point.startswith("os.rename") for point in found)
    for at in spread(len(found), 8):
        trainer.killed_and_resumed(at)


def test_a_file_size_limit_keeps_the_earlier_checkpoint(trainer: Trainer, tmp_path: Path) -> None:
    import resource
    import subprocess

    run = tmp_path / "run"
    first = subprocess.run(
        trainer.command(run, "--stop-at", "4"), env=trainer.env, capture_output=True, check=False
    )
    assert first.returncode == 0
    done = subprocess.run(
        trainer.command(run, "--resume"),
        env=trainer.env,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "size limit" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_000004"]
    assert trainer.resume(run).returncode == 0


def test_a_run_killed_before_writing_the_encoder_file_writes_it_when_resumed(
    trainer: Trainer,
) -> None:
    (path,) = trainer.whole.glob("deepencoder_*.safetensors")
    written = path.read_bytes()
    path.unlink()
    assert trainer.resume(trainer.whole).returncode == 0
    assert path.read_bytes() == written


def test_a_run_killed_while_removing_an_old_checkpoint_is_bit_identical(trainer: Trainer) -> None:
    found = trainer.points
    last = max(n for n, what in enumerate(found, 1) if what.startswith("os.rmdir"))
    trainer.killed_and_resumed(last)
    renamed = max(n for n, what in enumerate(found, 1) if what.startswith("os.rename")
                  and "/step_000004" in what)  # fmt: skip
    for at in (renamed, renamed + 1):
        trainer.killed_and_resumed(at)
