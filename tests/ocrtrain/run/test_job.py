"""The job of a run: its logs are closed, and told whether the run failed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ocrtrain.run.alarm import LossCurve
from ocrtrain.run.batch_log import BatchLog
from ocrtrain.run.job import Job, Logs
from ocrtrain.run.spikes import Spikes


@pytest.mark.parametrize("failed", [False, True])
def test_closing_closes_every_log_and_says_whether_the_run_failed(
    failed: bool, tmp_path: Path
) -> None:
    closed: list[Any] = []
    batches = BatchLog(tmp_path, samples=False)
    metrics = SimpleNamespace(close=lambda *, failed: closed.append(failed))
    job = object.__new__(Job)
    job.console = SimpleNamespace(close=lambda: closed.append("console"))  # type: ignore[assignment]
    job.stream = SimpleNamespace(close=lambda: closed.append("stream"))  # type: ignore[assignment]
    job.logs = Logs(metrics, batches, Spikes(), LossCurve())  # type: ignore[arg-type]
    job.close(failed=failed)
    assert closed == ["console", "stream", failed]
    with pytest.raises(ValueError, match="closed"):
        batches.sync()


def test_a_rank_without_logs_closes_its_console() -> None:
    closed: list[str] = []
    job = object.__new__(Job)
    job.console = SimpleNamespace(close=lambda: closed.append("console"))  # type: ignore[assignment]
    job.stream = SimpleNamespace(close=lambda: closed.append("stream"))  # type: ignore[assignment]
    job.logs = None
    job.close(failed=True)
    assert closed == ["console", "stream"]
