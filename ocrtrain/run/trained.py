"""A trained model, loaded from a checkpoint and ready to answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ocrdata.errors import UsageError
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.model.factory import bare_model
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.settings.config import Config
from ocrtrain.state.checkpoint import Checkpoint, newest


@dataclass(frozen=True)
class TrainedModel:
    """A trained model that is ready to answer, and the checkpoint folder it came from."""

    model: OcrModel
    tokenizer: Tokenizer
    config: Config
    checkpoint: Path


def check_path(path: Path) -> None:
    """Check that the folder a command names as --checkpoint exists. Raises UsageError."""
    if not path.is_dir():
        raise UsageError(
            f"--checkpoint {path}: no such folder; name a run folder or its checkpoints/step_N"
        )


def load_for_inference(path: Path, device: torch.device) -> TrainedModel:
    """Load a checkpoint, verified, in eval mode on `device`. `path` is a run folder, for its newest
    checkpoint, or a checkpoint folder. Raises TrainError if there is none or it is damaged.
    """
    checkpoint = Checkpoint.open(newest(path))
    config, tokenizer = checkpoint.config, checkpoint.tokenizer()
    model = bare_model(config, tokenizer)
    checkpoint.load_weights(model)
    return TrainedModel(model.to(device).eval(), tokenizer, config, checkpoint.folder)
