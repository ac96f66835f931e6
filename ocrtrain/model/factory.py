"""Builds the tokenizer and the model that a config describes: random, hub or file weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ocrdata.errors import UsageError
from ocrdata.tokens.tokenizer import Tokenizer, load_tokenizer
from ocrtrain.model.hub_files import fetch
from ocrtrain.model.init import scale_patches
from ocrtrain.model.ocr_model import OcrModel, build_model
from ocrtrain.model.start import load_start, tokenizer_of_gpt
from ocrtrain.settings.config import BYTES, Config
from ocrtrain.settings.presets import init_word


def find_tokenizer(config: Config) -> Tokenizer:
    """The tokenizer of a config: that of --init PATH if the GPT is taken from there, else the one
    that --tokenizer names, else the built-in one for random weights or nanochat's from `gpt_repo`.

    None is trained implicitly, because token counts and checkpoints depend on it. Raises UsageError
    for a file that is no tokenizer, or another one than that of the GPT's source, whose rows of the
    vocabulary belong to it; SourceError where nanochat's cannot be fetched.
    """
    of_gpt = tokenizer_of_gpt(config)
    if config.tokenizer:
        named = _named_tokenizer(config)
        if of_gpt and named.fingerprint != of_gpt.fingerprint:
            raise UsageError(
                f"--tokenizer {config.tokenizer} is another one than that of --init {config.init} "
                f"(fingerprints {named.fingerprint} and {of_gpt.fingerprint}): the rows of the "
                "GPT's vocabulary belong to its own; leave --tokenizer out, or leave the GPT there "
                "with --init-parts sam,clip,projector"
            )
        return named
    if of_gpt:
        return of_gpt
    if init_word(config) == "random":
        return load_tokenizer(BYTES)
    wanted = "tokenizer.pkl"
    (path,) = fetch(config.gpt_repo, lambda names: [n for n in names if n == wanted], needed=wanted)
    return load_tokenizer(path)


def check_tokenizer(config: Config) -> None:
    """Check that what --tokenizer names is a tokenizer, with as many tokens as --vocab-size says.
    Raises UsageError, OcrError for a modified file."""
    if config.tokenizer:
        with_vocabulary(config, _named_tokenizer(config))


def _named_tokenizer(config: Config) -> Tokenizer:
    try:
        return load_tokenizer(config.tokenizer)
    except UsageError as exc:
        raise UsageError(f"--tokenizer {exc}") from exc


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


def new_model(
    config: Config, tokenizer: Tokenizer, *, say: Callable[[str], None] = lambda line: None
) -> OcrModel:
    """A model with the config's initial weights and frozen parts, on the CPU. `say` gets lines that
    tell where each part comes from, and what starts from random values.

    Raises UsageError or SourceError where weights cannot be found, WeightsError where they do not
    fit, TrainError for a damaged checkpoint.
    """
    model = bare_model(config, tokenizer)
    for line in load_start(model, config):
        say(line)
    return ready_to_train(model, config)


def ready_to_train(model: OcrModel, config: Config) -> OcrModel:
    """Freeze parts and enable activation checkpointing as the config says; returns `model`."""
    model.freeze(config.freeze)
    model.checkpoint_blocks(config.checkpointing)
    return model


def bare_model(config: Config, tokenizer: Tokenizer) -> OcrModel:
    """A model with random weights, on the CPU: a function of `config.seed`."""
    model = build_model(
        config.model,
        image_size=config.image_size,
        image_token=tokenizer.image,
        seed=config.seed,
    )
    scale_patches(model, config.patch_scale)
    return model
