"""The encoder is compared with a hand-written oracle; parameter counts are exact."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from ocrdata.errors import TrainError, UsageError
from ocrtrain.model.encoder import DeepEncoder, import_vision_classes
from ocrtrain.model.tensor_names import to_deepencoder
from ocrtrain.settings.image_slots import image_slots
from ocrtrain.settings.model_config import ModelConfig
from tests.support import oracle
from tests.support.encoders import REAL_HEADS, SMALL, pixels, randomise


def from_oracle(encoder: DeepEncoder, config: ModelConfig, images: Tensor) -> Tensor:
    return oracle.encoder(
        to_deepencoder(encoder),
        images,
        heads=(config.sam_heads, config.clip_heads),
        window=config.sam_window,
        full=config.sam_global_layers,
    )


@pytest.mark.parametrize(("config", "size"), [(SMALL, 128), (SMALL, 192), (REAL_HEADS, 320)])
def test_encoder_equals_the_oracle(config: ModelConfig, size: int) -> None:
    encoder = DeepEncoder(config)
    randomise(encoder)
    with torch.no_grad():
        ours = encoder(pixels(size))
        wanted = from_oracle(encoder, config, pixels(size))
    assert ours.shape == (2, image_slots(size), config.gpt_width)
    assert wanted.std() > 0.1  # not all the same
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("size", [128, 256])
def test_sam_and_clip_equal_the_oracle_separately(size: int) -> None:
    encoder = DeepEncoder(SMALL)
    randomise(encoder, seed=1)
    weights = to_deepencoder(encoder)
    with torch.no_grad():
        sam = oracle.sam(
            oracle.part(weights, "sam_model."),
            pixels(size),
            heads=SMALL.sam_heads,
            window=SMALL.sam_window,
            full=SMALL.sam_global_layers,
        )
        torch.testing.assert_close(encoder.sam_map(pixels(size)), sam, rtol=1e-5, atol=1e-5)
        clip = oracle.clip(oracle.part(weights, "vision_model."), sam, heads=SMALL.clip_heads)
        ours = encoder.clip(sam).last_hidden_state
        torch.testing.assert_close(ours, clip, rtol=1e-5, atol=1e-5)


def test_exact_parameter_counts_of_the_full_model() -> None:
    with torch.device("meta"):
        encoder = DeepEncoder(ModelConfig())
    count = {
        name: sum(parameter.numel() for parameter in getattr(encoder, name).parameters())
        for name in ("sam", "clip", "projector")
    }
    assert count["sam"] == 95_569_152  # with the two strided convolutions
    # The published 303,177,728 include a patch embedding of 1024 x 3 x 14 x 14, which is left out
    # here: SAM's feature map replaces the patches.
    assert count["clip"] == 303_177_728 - 1024 * 3 * 14 * 14 == 302_575_616
    assert count["projector"] == 2048 * 1280 + 1280


def test_a_frozen_sam_has_no_graph() -> None:
    encoder = DeepEncoder(SMALL)
    randomise(encoder)
    assert encoder.sam_map(pixels(64)).requires_grad
    encoder.sam.requires_grad_(False)
    assert not encoder.sam_map(pixels(64)).requires_grad
    encoder(pixels(64)).sum().backward()
    assert encoder.projector.weight.grad is not None
    assert all(parameter.grad is not None for parameter in encoder.clip.parameters())


def test_images_of_a_wrong_shape_are_refused() -> None:
    encoder = DeepEncoder(SMALL)
    with pytest.raises(UsageError, match=r"\[1, 3, 64, 128\]"):
        encoder(torch.zeros(1, 3, 64, 128))
    with pytest.raises(UsageError, match=r"100 px .*multiple of 64"):
        encoder(torch.zeros(1, 3, 100, 100))


def test_an_old_transformers_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    # 5.19 and older do not have this module.
    monkeypatch.setitem(sys.modules, "transformers.models.unlimited_ocr", None)
    with pytest.raises(TrainError, match=r"pip install 'transformers>=5.20'"):
        import_vision_classes()
