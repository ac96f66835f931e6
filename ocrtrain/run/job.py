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
from ocrtrain.run.batch_log import BatchLog
from ocrtrain.run.console import Console
from ocrtrain.run.run_log import RunLog
from ocrtrain.run.spikes import Spikes
from ocrtrain.run.timer import StepTimer
from ocrtrain.settings.config import Config
from ocrtrain.state.checkpoint import State


@dataclass
class Job:
    """Everything the loop works on. `state` counts what is done; `is_intact` is False while the
    weights are updated, when they are those of no state."""

    config: Config
    run: Path
    device: torch.device
    tokenizer: Tokenizer
    sources: Sources
    stream: Stream
    skipped: SkippedSamples
    model: OcrModel
    optimizer: torch.optim.Optimizer
    state: State
    log: RunLog
    batch_log: BatchLog
    spikes: Spikes
    console: Console
    planned_tokens: int
    timer: StepTimer
    is_intact: bool = True

    def close(self, *, failed: bool = False) -> None:
        """Close the console and the run's log files; W&B is told whether the run failed."""
        self.console.close()
        self.batch_log.close()
        self.log.close(failed=failed)
