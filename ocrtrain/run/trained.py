"""A trained model, loaded from a checkpoint or an exported folder and ready to answer."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch

from ocrdata.errors import UsageError, WeightsError
from ocrdata.images.modes import ImageMode
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.model.factory import bare_model
from ocrtrain.model.ocr_model import OcrModel
from ocrtrain.model.pretrained import (
    EXPORTED,
    check_weights,
    copy_weights,
    find_weights,
    shapes_of,
)
from ocrtrain.settings.config import Config
from ocrtrain.settings.model_config import PARTS, ModelConfig
from ocrtrain.settings.named_sources import checked_mode
from ocrtrain.state.checkpoint import COMPLETE, Checkpoint, newest


@dataclass(frozen=True)
class TrainedModel:
    """A trained model that is ready to answer, and the checkpoint or exported folder it came from.

    Of an exported folder the config has what the model depends on; its other fields are defaults.
    """

    model: OcrModel
    tokenizer: Tokenizer
    config: Config
    checkpoint: Path

    @property
    def digests(self) -> Path:
        """The file of its digests, which is another one for other weights."""
        exported = self.checkpoint / EXPORTED
        return exported if exported.is_file() else self.checkpoint / COMPLETE

    @property
    def folder(self) -> Path:
        """The run folder of a checkpoint; where an exported folder lies."""
        parent = self.checkpoint.parent
        return parent if (self.checkpoint / EXPORTED).is_file() else parent.parent

    def image_mode(self, size: str = "") -> ImageMode:
        """How an image that belongs to no source of the run is shown: as --image-size says, if it
        is given, else as the run's --image-size did or, if no source was shown so, as all of them
        were. Raises UsageError if these differ."""
        if size:
            return checked_mode(size)
        first, *others = self.config.image_modes
        if others and first != ImageMode(self.config.image_size):
            sizes = ", ".join(map(str, self.config.image_modes))
            raise UsageError(
                f"--image-size is missing: the sources of the run were shown at different sizes "
                f"({sizes} px); give the one for this image"
            )
        return first


def check_path(path: Path) -> None:
    """Check that the folder a command names as --checkpoint exists. Raises UsageError."""
    if not path.is_dir():
        raise UsageError(
            f"--checkpoint {path}: no such folder; name a run folder, its checkpoints/step_N, or "
            "an exported folder"
        )


def load_for_inference(path: Path, device: torch.device) -> TrainedModel:
    """Load a checkpoint, verified, in eval mode on `device`. `path` is a run folder, for its newest
    checkpoint, a checkpoint folder, or a folder that `tools/export.py` wrote. Raises TrainError if
    there is none or it is damaged, WeightsError for a damaged export.
    """
    if (path / EXPORTED).is_file():
        return _load_exported(path, device)
    checkpoint = Checkpoint.open(newest(path))
    config, tokenizer = checkpoint.config, checkpoint.tokenizer()
    model = bare_model(config, tokenizer)
    checkpoint.load_weights(model)
    return TrainedModel(model.to(device).eval(), tokenizer, config, checkpoint.folder)


def _load_exported(path: Path, device: torch.device) -> TrainedModel:
    weights = find_weights(str(path))
    if weights.tokenizer is None:
        raise WeightsError(f"{path}: its tokenizer is missing; export the model again")
    tokenizer, record = weights.tokenizer(), weights.record
    try:
        sizes = {one.name: record[one.name] for one in fields(ModelConfig)}
        config = Config(
            init="random",
            image_size=record["image_sizes"][0],
            seq_len=record["seq_len"],
            precision=record["precision"],
            model=ModelConfig(**{**sizes, "sam_global_layers": tuple(sizes["sam_global_layers"])}),
        )
    except (KeyError, TypeError, IndexError, UsageError) as exc:
        raise WeightsError(
            f"{path / 'config.json'}: not as it was exported ({exc}); export the model again"
        ) from exc
    model = bare_model(config, tokenizer)
    copy_weights(model, check_weights(weights, config.model, shapes_of(model), parts=PARTS))
    return TrainedModel(model.to(device).eval(), tokenizer, config, path)
