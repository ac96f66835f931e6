"""The vision encoder: SAM, two strided convolutions, CLIP, and the projection to the decoder.

Owner of what one image becomes: `image_slots(size)` vectors of the decoder's width. The layers
are those of `transformers` (model `unlimited_ocr`, the very encoder of DeepSeek-OCR); what is
written here is how they are put together, and every size comes from `ModelConfig`. It never
decodes or letterboxes an image, and never initialises its own weights (`ocrtrain.model.init` does).
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ocrdata.errors import TrainError, UsageError
from ocrtrain.settings.config import ModelConfig
from ocrtrain.settings.image_slots import PATCH, SHRINK, image_slots

CLIP_PATCH = 14  # names the position grid in CLIP's config only: its patch embedding is unused


class VisionParts(NamedTuple):
    """The classes of `transformers` the encoder is made of."""

    sam: type[nn.Module]
    sam_config: type
    clip: type[nn.Module]
    clip_config: type


def vision_parts() -> VisionParts:
    """Import the encoder's classes; they came to `transformers` with 5.20.

    Imported here and not above, so that counting slots and costs needs no `transformers`.
    Raises TrainError with the remedy where the installed version has none.
    """
    try:
        from transformers.models.unlimited_ocr import (
            configuration_unlimited_ocr as configuration,
        )
        from transformers.models.unlimited_ocr import modeling_unlimited_ocr as modeling

        return VisionParts(
            sam=modeling.UnlimitedOcrSamVisionEncoder,
            sam_config=configuration.UnlimitedOcrSamVisionConfig,
            clip=modeling.UnlimitedOcrVisionEncoder,
            clip_config=configuration.UnlimitedOcrVisionEncoderConfig,
        )
    except (ImportError, AttributeError) as exc:
        import transformers

        raise TrainError(
            f"transformers {transformers.__version__} has not the vision encoder this model is "
            "made of (UnlimitedOcrSamVisionEncoder); install 5.20 or newer: "
            "pip install 'transformers>=5.20'"
        ) from exc


class DeepEncoder(nn.Module):
    """pixels [N, 3, S, S] in [-1, 1] -> [N, image_slots(S), gpt_width], any S that 64 divides."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        parts = vision_parts()
        self.sam = parts.sam(
            parts.sam_config(
                hidden_size=config.sam_width,
                num_hidden_layers=config.sam_layers,
                num_attention_heads=config.sam_heads,
                mlp_dim=config.sam_mlp,
                window_size=config.sam_window,
                global_attn_indexes=list(config.sam_global_layers),
                output_channels=config.sam_neck,
                downsample_channels=[config.sam_mid, config.sam_out],
                image_size=config.sam_grid * PATCH,
                patch_size=PATCH,
                attn_implementation="sdpa",
            )
        )
        self.clip = parts.clip(
            parts.clip_config(
                hidden_size=config.clip_width,
                num_hidden_layers=config.clip_layers,
                num_attention_heads=config.clip_heads,
                intermediate_size=config.clip_mlp,
                image_size=config.clip_grid * CLIP_PATCH,
                patch_size=CLIP_PATCH,
                attn_implementation="sdpa",
            )
        )
        self.projector = nn.Linear(config.clip_width + config.sam_out, config.gpt_width)
        self.image_newline = nn.Parameter(torch.zeros(config.gpt_width))
        self.view_separator = nn.Parameter(torch.zeros(config.gpt_width))

    def sam_map(self, pixels: Tensor) -> Tensor:
        """[N, 3, S, S] -> [N, sam_out, S/64, S/64].

        A SAM of which nothing is trained runs without a graph: its activations are not kept.
        """
        if pixels.dim() != 4 or pixels.shape[-1] != pixels.shape[-2]:
            raise UsageError(f"pixels are [N, 3, S, S], not {list(pixels.shape)}")
        image_slots(pixels.shape[-1])  # raises where 64 does not divide S
        frozen = not any(parameter.requires_grad for parameter in self.sam.parameters())
        with torch.no_grad() if frozen else nullcontext():
            features: Tensor = self.sam(pixels).last_hidden_state
        return features

    def features(self, pixels: Tensor) -> Tensor:
        """[N, 3, S, S] -> [N, (S/64)^2, clip_width + sam_out]: CLIP's patches beside SAM's."""
        sam = self.sam_map(pixels)
        clip = self.clip(sam).last_hidden_state[:, 1:]  # without the class token
        return torch.cat([clip, sam.flatten(2).transpose(1, 2)], dim=-1)

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, S, S] -> [N, image_slots(S), gpt_width]: rows, each ended by a newline, then the
        separator."""
        side = pixels.shape[-1] // (PATCH * SHRINK)
        rows = self.projector(self.features(pixels)).unflatten(1, (side, side))
        count, _, _, width = rows.shape
        newline = self.image_newline.to(rows.dtype).expand(count, side, 1, width)
        separator = self.view_separator.to(rows.dtype).expand(count, 1, width)
        return torch.cat([torch.cat([rows, newline], dim=2).flatten(1, 2), separator], dim=1)
