"""Builds the tokenizer and the model that a config describes: random, hub or file weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ocrdata.errors import UsageError
from ocrdata.tokens.tokenizer import Tokenizer, load_tokenizer
from ocrtrain.model.encoder_file import load_deepencoder
from ocrtrain.model.hub_files import fetch
from ocrtrain.model.ocr_model import OcrModel, build_model
from ocrtrain.model.pretrained import Pretrained, load_pretrained
from ocrtrain.settings.config import Config


def find_tokenizer(config: Config) -> Tokenizer:
    """The tokenizer that the config names: a file, the built-in one (the default for random
    weights), or nanochat's from `gpt_repo`.

    None is trained implicitly, because token counts and checkpoints depend on it. Raises UsageError
    for a file that is no tokenizer, SourceError where nanochat's cannot be fetched.
    """
    if config.tokenizer_name:
        return load_tokenizer(config.tokenizer_name)
    wanted = "tokenizer.pkl"
    (path,) = fetch(config.gpt_repo, lambda names: [n for n in names if n == wanted], needed=wanted)
    return load_tokenizer(path)


def with_vocabulary(config: Config, tokenizer: Tokenizer) -> Config:
    """The config with the tokenizer's vocabulary size filled in if it is 0.

    Raises UsageError where it is neither 0 nor the tokenizer's.
    """
    if config.model.vocab_size in (0, tokenizer.vocab_size):
        return replace(config, model=replace(config.model, vocab_size=tokenizer.vocab_size))
    raise UsageError(
        f"the tokenizer has {tokenizer.vocab_size} tokens, but --vocab-size is "
        f"{config.model.vocab_size}; give --vocab-size 0 to use the tokenizer's"
    )


def new_model(config: Config, tokenizer: Tokenizer) -> OcrModel:
    """A model with the config's initial weights and frozen parts, on the CPU.

    Raises UsageError or SourceError where weights cannot be found, WeightsError where they do not
    fit.
    """
    model = bare_model(config, tokenizer)
    hub = config.init == "pretrained"
    encoder = hub and not config.deepencoder
    load_pretrained(
        model,
        config.model,
        sources=Pretrained(
            sam=config.sam_repo if encoder else "",
            clip=config.clip_repo if encoder else "",
            gpt=config.gpt_repo if hub and not config.fresh_gpt else "",
        ),
    )
    if config.deepencoder:
        load_deepencoder(model, Path(config.deepencoder))
    return ready_to_train(model, config)


def ready_to_train(model: OcrModel, config: Config) -> OcrModel:
    """Freeze parts and enable activation checkpointing as the config says; returns `model`."""
    model.freeze(config.freeze)
    model.checkpoint_blocks(config.checkpointing)
    return model


def bare_model(config: Config, tokenizer: Tokenizer) -> OcrModel:
    """A model with random weights, on the CPU: a function of `config.seed`."""
    return build_model(
        config.model,
        image_size=config.image_size,
        image_token=tokenizer.image,
        seed=config.seed,
    )
