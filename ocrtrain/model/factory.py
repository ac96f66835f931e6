"""From a config to a model on a device: tokenizer, weights, what is frozen.

Owner of the choices between hub, files and random weights. Used by training and by every command
that loads a checkpoint.
"""

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
    """The tokenizer of a new run: the file given, else nanochat's from the hub.

    Raises UsageError where weights are random and no tokenizer is given: one is never trained in
    passing, since the shards' token counts and every checkpoint depend on it.
    """
    if config.tokenizer:
        return load_tokenizer(Path(config.tokenizer))
    if config.init == "random":
        raise UsageError(
            "--init random needs --tokenizer FILE; make one of your shards with "
            "python tools/train_tokenizer.py --shards SPEC --out FILE"
        )
    wanted = "tokenizer.pkl"
    (path,) = fetch(config.gpt_repo, lambda names: [n for n in names if n == wanted], needed=wanted)
    return load_tokenizer(path)


def with_vocabulary(config: Config, tokenizer: Tokenizer) -> Config:
    """The config with the tokenizer's vocabulary where it leaves that open (`--vocab-size 0`).

    Raises UsageError where both are given and differ.
    """
    if config.model.vocab_size in (0, tokenizer.vocab_size):
        return replace(config, model=replace(config.model, vocab_size=tokenizer.vocab_size))
    raise UsageError(
        f"the tokenizer has {tokenizer.vocab_size} tokens, the model --vocab-size "
        f"{config.model.vocab_size}; give --vocab-size 0 to take the tokenizer's"
    )


def new_model(config: Config, tokenizer: Tokenizer) -> OcrModel:
    """The model a run starts from, on the CPU, with `requires_grad` as the config freezes it."""
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
    """`model`, with `requires_grad` and block checkpointing as the config has them."""
    model.freeze(config.freeze)
    model.checkpoint_blocks(config.checkpointing)
    return model


def bare_model(config: Config, tokenizer: Tokenizer) -> OcrModel:
    """The model with random weights."""
    return build_model(
        config.model,
        image_size=config.image_size,
        image_token=tokenizer.image,
        seed=config.seed,
    )
