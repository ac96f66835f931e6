"""Checks that a config names its data and weights, made before any file is opened."""

from __future__ import annotations

from pathlib import Path

from ocrdata.errors import UsageError
from ocrtrain.settings.config import BYTES, TEXT_RATIO, Config


def check_data(config: Config) -> None:
    """Check that the data flags are given and agree, and that the tokenizer file exists.

    Raises UsageError naming the flag.
    """
    text_alone = bool(config.text) and all(ratio == 1 for _, ratio in config.text_ratios)
    if not config.shards and not config.source and not text_alone:
        raise UsageError(
            "--shards is missing: the image shards to train on (or give sources with --source; "
            "for text alone, --text SHARDS --text-ratio 1)"
        )
    if config.val and not config.shards:
        raise UsageError(
            "--val needs --shards: images are validated on only if they are also trained on"
        )
    if (config.text_ratio != TEXT_RATIO or config.text_ratio_at) and not config.text:
        raise UsageError("--text-ratio needs --text: there are no text-only shards to mix in")
    if config.val_text and not config.text:
        raise UsageError(
            "--val-text needs --text: text is validated on only if it is also trained on"
        )
    if config.tokenizer != BYTES:
        _check_exists("--tokenizer", config.tokenizer)


def lacks_encoder(config: Config) -> bool:
    """Whether `--deepencoder` is required but not given, as for stage 2 before stage 1 has run."""
    return "sam" in config.freeze and not config.deepencoder


def check_weights(config: Config) -> None:
    """Check that `--deepencoder` is given where it is required, and that the file exists.

    Raises UsageError naming the flag.
    """
    if lacks_encoder(config):
        raise UsageError(
            "--freeze sam needs --deepencoder FILE: the two convolutions after SAM are trained "
            "in stage 1; no hub checkpoint has them"
        )
    _check_exists("--deepencoder", config.deepencoder)
    if config.deepencoder and Path(config.deepencoder).is_dir():
        raise UsageError(
            f"--deepencoder {config.deepencoder}: a folder; name the file in it that stage 1 wrote "
            "when it ended, deepencoder_*.safetensors"
        )


def _check_exists(flag: str, name: str) -> None:
    if name and not Path(name).exists():
        raise UsageError(f"{flag} {name}: no such file")
