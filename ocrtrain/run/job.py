"""What a run works on: its config, data, model, optimizer, state and logs, made by
`ocrtrain.run.launch` and handed to the loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.data.skipped import SkippedSamples
from ocrtrain.data.sources import Sources
from ocrtrain.data.stream import Stream
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.run.alarm import LossCurve
from ocrtrain.run.batch_log import BatchLog
from ocrtrain.run.console import Console
from ocrtrain.run.parallel import ModelOfRanks
from ocrtrain.run.run_log import RunLog
from ocrtrain.run.spikes import Spikes
from ocrtrain.run.timer import StepTimer
from ocrtrain.settings.config import Config
from ocrtrain.settings.world import World
from ocrtrain.state.checkpoint import State


@dataclass
class Logs:
    """What is written while a run trains, by rank 0 alone. `wandb_id` is the id of its W&B run."""

    metrics: RunLog
    batches: BatchLog
    spikes: Spikes
    curve: LossCurve

    def sync(self) -> None:
        """Make the lines so far durable: a checkpoint must not be ahead of its logs."""
        self.metrics.sync()
        self.batches.sync()

    def close(self, *, failed: bool) -> None:
        """Close the files; W&B is told whether the run failed."""
        self.batches.close()
        self.metrics.close(failed=failed)


@dataclass
class Job:
    """Everything the loop works on. `state` counts what is done; only rank 0 has `logs`.
    `planned_tokens` are those of the plan, None if it changed on the way. `is_intact` is False
    while the weights are updated, when they are those of no state."""

    config: Config
    run: Path
    world: World
    tokenizer: Tokenizer
    sources: Sources
    stream: Stream
    skipped: SkippedSamples
    model: OcrModel
    trainer: ModelOfRanks
    optimizer: torch.optim.Optimizer
    state: State
    logs: Logs | None
    console: Console
    planned_tokens: int | None
    timer: StepTimer
    is_intact: bool = True

    @property
    def device(self) -> torch.device:
        """The device of this rank."""
        return torch.device(self.world.device)

    def close(self, *, failed: bool = False) -> None:
        """Close the console and the run's log files, and release what was fetched ahead."""
        self.console.close()
        self.stream.close()
        if self.logs is not None:
            self.logs.close(failed=failed)
