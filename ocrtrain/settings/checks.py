"""Checks that a config names its data and weights, made before any file is opened."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path

from ocrdata.errors import UsageError
from ocrtrain.settings.config import BYTES, TEXT_RATIO, Config
from ocrtrain.settings.rules import INIT_WORDS

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")
WEIGHT_FILES = (".pt", ".pth", ".bin", ".safetensors")
"""Endings of weight files, which no repository has."""


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


def init_is_path(config: Config) -> bool:
    """Whether --init names a path or a repository, and is no word."""
    return config.init not in INIT_WORDS


def lacks_encoder(config: Config) -> bool:
    """Whether the frozen encoder must come from somewhere and no flag says from where, as for stage
    2 before stage 1 has run."""
    given = init_is_path(config) and (not config.init_parts or "sam" in config.init_parts)
    return "sam" in config.freeze and not config.deepencoder and not given


def check_weights(config: Config) -> None:
    """Check that the encoder's weights are named where they are required, and that what
    `--deepencoder` and `--init` name exists or may be a repository.

    Raises UsageError naming the flag.
    """
    if lacks_encoder(config):
        raise UsageError(
            "--freeze sam needs --deepencoder FILE, or --init with weights of an encoder, such as "
            "deepseek-ai/DeepSeek-OCR: the two convolutions after SAM are trained in stage 1; no "
            "hub checkpoint of SAM has them"
        )
    _check_exists("--deepencoder", config.deepencoder)
    path = Path(config.init).expanduser()
    if not init_is_path(config) or path.exists():
        return
    if _REPOSITORY.fullmatch(config.init) and path.suffix not in WEIGHT_FILES:
        return
    near = get_close_matches(config.init, INIT_WORDS, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UsageError(
        f"--init {config.init}: no such file or folder{hint}; give pretrained, random, a path of "
        "weights, or a hub repository as owner/name or owner/name@revision"
    )


def _check_exists(flag: str, name: str) -> None:
    if name and not Path(name).exists():
        raise UsageError(f"{flag} {name}: no such file")
