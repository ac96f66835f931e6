"""Runs the product's own training for as many steps as a benchmark wants, and no further.

Everything is `ocrtrain.run.launch.train` as a user gets it: plan, loader, loss, optimizer and logs.
Only its end is left out: a benchmark does not wait for the last validation and gigabytes of
checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ocrtrain.run import launch, loop
from ocrtrain.run.job import Job
from ocrtrain.settings.config import Config


class _EnoughError(BaseException):
    """Ends a run. No `Exception`: a run that fails by one saves its state first."""


def train_while(config: Config, wanted: Callable[[Job], bool]) -> None:
    """Train as `config` says; `wanted(job)` is asked before each step whether to do it.

    Give a config with more steps than are wanted: a run that reaches its end validates and saves.
    """
    step = loop.train_step

    def asked(job: Job, *others: Any) -> Any:
        if not wanted(job):
            raise _EnoughError
        return step(job, *others)

    loop.train_step = asked
    try:
        launch.train(config)
    except _EnoughError:
        return
    finally:
        loop.train_step = step
    raise ValueError(f"the run ended after {config.steps} steps, before the benchmark did")
