"""The job of a run: its logs are closed, and told whether the run failed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ocrtrain.run.batch_log import BatchLog
from ocrtrain.run.job import Job


@pytest.mark.parametrize("failed", [False, True])
def test_closing_closes_every_log_and_says_whether_the_run_failed(
    failed: bool, tmp_path: Path
) -> None:
    closed: list[Any] = []
    job = object.__new__(Job)
    job.console = SimpleNamespace(close=lambda: closed.append("console"))  # type: ignore[assignment]
    job.log = SimpleNamespace(close=lambda *, failed: closed.append(failed))  # type: ignore[assignment]
    job.batch_log = BatchLog(tmp_path, samples=False)
    job.close(failed=failed)
    assert closed == ["console", failed]
    with pytest.raises(ValueError, match="closed"):
        job.batch_log.sync()
