"""What a config must name before anything is opened: data and weights."""

from __future__ import annotations

from pathlib import Path

from ocrdata.errors import UsageError
from ocrtrain.settings.config import TEXT_RATIO, Config


def check_data(config: Config) -> None:
    """What must be named of data before anything is opened. Raises UsageError."""
    if not config.shards:
        raise UsageError("--shards is missing: the image shards to train on")
    if (config.text_ratio != TEXT_RATIO or config.text_ratio_at) and not config.text:
        raise UsageError("--text-ratio needs --text: without text-only shards nothing is mixed in")
    if config.val_text and not config.text:
        raise UsageError("--val-text needs --text: without it no text is trained or validated on")
    _is_there("--tokenizer", config.tokenizer)


def lacks_encoder(config: Config) -> bool:
    """Whether a run cannot begin before an encoder is named: stage 2 before stage 1 has run."""
    return "sam" in config.freeze and not config.deepencoder


def check_weights(config: Config) -> None:
    """What must be there of weights before anything is opened. Raises UsageError."""
    if lacks_encoder(config):
        raise UsageError(
            "--freeze sam needs --deepencoder FILE: the two convolutions behind SAM are trained "
            "in stage 1 and stand in no hub checkpoint"
        )
    _is_there("--deepencoder", config.deepencoder)


def _is_there(flag: str, name: str) -> None:
    if name and not Path(name).exists():
        raise UsageError(f"{flag} {name}: there is no such file")
