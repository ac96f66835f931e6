"""Random initialisation: depends on the seed only, is complete, and keeps variances."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from ocrtrain.model.init import initialise
from ocrtrain.model.ocr_model import build_model
from tests.support.encoders import SMALL, pixels
from tests.support.losses import token_losses
from tests.support.models import IMAGE, make_batch, random_model


def test_initial_weights_depend_on_the_seed_only() -> None:
    build = partial(build_model, SMALL, image_size=128, image_token=IMAGE)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = dict(build(seed=3).named_parameters())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = dict(build(seed=3).named_parameters())
    other = dict(build(seed=4).named_parameters())
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert any(not torch.equal(first[n], other[n]) for n in first)
    # A parameter starts the same in a model of other sizes.
    other_model = build_model(
        replace(SMALL, vocab_size=400, sam_heads=2), image_size=192, image_token=0, seed=3
    )
    found = dict(other_model.named_parameters())
    assert torch.equal(found["encoder.sam.pos_embed"], first["encoder.sam.pos_embed"])


def test_every_parameter_is_initialised() -> None:
    model = random_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    initialise(model, SMALL, seed=0)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_a_fresh_model_distinguishes_images_and_predicts_almost_uniformly() -> None:
    model = build_model(SMALL, image_size=128, image_token=IMAGE, seed=0)
    with torch.no_grad():
        features = model.encoder.features(pixels(128, count=4))
        assert features.std() > 0.01
        assert (features[0] - features[1]).abs().max() > 0.01
    losses = token_losses(model, make_batch([40, 30], [1, 0])).losses
    assert losses.mean().item() == pytest.approx(math.log(300), abs=0.8)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_standard_deviations() -> None:
    model = build_model(SMALL, image_size=128, image_token=IMAGE, seed=0)
    found = dict(model.named_parameters())

    def std(name: str, wanted: float) -> None:
        assert found[name].std().item() == pytest.approx(wanted, rel=0.15), name
        assert found[name].abs().max() <= 3.0001 * wanted

    std("encoder.sam.patch_embed.projection.weight", (3 * 16 * 16) ** -0.5)
    std("encoder.sam.neck.conv2.weight", (9 * SMALL.sam_neck) ** -0.5)
    std("encoder.sam.layers.0.attn.qkv.weight", SMALL.sam_width**-0.5)
    std("encoder.sam.layers.0.mlp.lin2.weight", (SMALL.sam_mlp * 2 * SMALL.sam_layers) ** -0.5)
    std("encoder.clip.encoder.layers.0.self_attn.out_proj.weight", (32 * 2 * 3) ** -0.5)
    std("encoder.sam.pos_embed", 0.1)
    std("encoder.clip.embeddings.position_embedding.weight", 0.3)
    std("gpt.model.layers.0.self_attn.o_proj.weight", SMALL.gpt_width**-0.5)
    std("gpt.model.layers.0.mlp.fc2.weight", SMALL.gpt_mlp**-0.5)
    std("gpt.lm_head.weight", SMALL.gpt_width**-0.5)
    std("gpt.model.embed_tokens.weight", 1.0)
    assert (found["encoder.clip.pre_layrnorm.weight"] == 1).all()
    assert (found["encoder.projector.bias"] == 0).all()


def test_white_patches_embed_to_zero() -> None:
    model = build_model(SMALL, image_size=128, image_token=IMAGE, seed=0)
    with torch.no_grad():
        white = model.encoder.sam.patch_embed(torch.ones(1, 3, 64, 64))
        black = model.encoder.sam.patch_embed(-torch.ones(1, 3, 64, 64))
    assert white.abs().max() < 1e-5
    assert black.abs().max() > 0.1
