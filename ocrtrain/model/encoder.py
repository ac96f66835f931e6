"""The vision encoder: SAM, two strided convolutions, CLIP, and a projection to the decoder's width.

It turns one image into `image_slots(size)` vectors. The layers come from `transformers` (model
`unlimited_ocr`, the encoder of DeepSeek-OCR); this module connects them, with all sizes from
`ModelConfig`. Images are decoded and letterboxed elsewhere, and weights are initialised by
`ocrtrain.model.init`.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ocrdata.errors import TrainError, UsageError
from ocrtrain.model.sam_attention import SamAttention
from ocrtrain.settings.image_slots import PATCH, SHRINK, image_slots
from ocrtrain.settings.model_config import ModelConfig

CLIP_PATCH = 14  # px; only sets the size of the position grid: the patch embedding is unused


class VisionClasses(NamedTuple):
    """The classes of `transformers` that make up the encoder."""

    sam: type[nn.Module]
    sam_config: type
    clip: type[nn.Module]
    clip_config: type


def import_vision_classes() -> VisionClasses:
    """Import the encoder's classes, which `transformers` has since 5.20.

    They are imported here and not at the top of the module, so that only building a model takes the
    time to import `transformers`. Raises TrainError where the installed version lacks them.
    """
    try:
        from transformers.models.unlimited_ocr import (
            configuration_unlimited_ocr as configuration,
        )
        from transformers.models.unlimited_ocr import modeling_unlimited_ocr as modeling

        return VisionClasses(
            sam=modeling.UnlimitedOcrSamVisionEncoder,
            sam_config=configuration.UnlimitedOcrSamVisionConfig,
            clip=modeling.UnlimitedOcrVisionEncoder,
            clip_config=configuration.UnlimitedOcrVisionEncoderConfig,
        )
    except (ImportError, AttributeError) as exc:
        import transformers

        raise TrainError(
            f"transformers {transformers.__version__} lacks the vision encoder of this model "
            "(UnlimitedOcrSamVisionEncoder); install 5.20 or newer: "
            "pip install 'transformers>=5.20'"
        ) from exc


class DeepEncoder(nn.Module):
    """Pixels [N, 3, S, S] in [-1, 1] -> [N, image_slots(S), gpt_width], for S a multiple of 64."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        classes = import_vision_classes()
        self.sam = classes.sam(
            classes.sam_config(
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
        layers: Any = self.sam.layers
        for layer in layers:
            layer.attn = SamAttention(layer.attn)
        self.clip = classes.clip(
            classes.clip_config(
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
        """SAM and the strided convolutions: [N, 3, S, S] -> [N, sam_out, S/64, S/64].

        If no parameter of SAM is trained, it runs without a graph and saves no activations. Raises
        UsageError unless images are square, with a side that is a multiple of 64.
        """
        if pixels.dim() != 4 or pixels.shape[-1] != pixels.shape[-2]:
            raise UsageError(f"pixels must be [N, 3, S, S], not {list(pixels.shape)}")
        image_slots(pixels.shape[-1])  # raises for a wrong size
        frozen = not any(parameter.requires_grad for parameter in self.sam.parameters())
        with torch.no_grad() if frozen else nullcontext():
            features: Tensor = self.sam(pixels).last_hidden_state
        return features

    def features(self, pixels: Tensor) -> Tensor:
        """[N, 3, S, S] -> [N, (S/64)^2, clip_width + sam_out]: CLIP's features, then SAM's.

        Raises UsageError as `sam_map` does.
        """
        sam = self.sam_map(pixels)
        trained = sam.requires_grad or any(p.requires_grad for p in self.clip.parameters())
        with nullcontext() if trained else torch.no_grad():
            clip = self.clip(sam).last_hidden_state[:, 1:]  # without the class token
        return torch.cat([clip, sam.flatten(2).transpose(1, 2)], dim=-1)

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, S, S] -> [N, image_slots(S), gpt_width].

        A newline vector follows each line of features; the separator comes last. Raises UsageError
        as `sam_map` does.
        """
        return self.view(self.lines(pixels))

    def lines(self, pixels: Tensor) -> Tensor:
        """[N, 3, S, S] -> [N, S/64, S/64, gpt_width], the lines of features of each image. Raises
        UsageError as `sam_map` does."""
        side = pixels.shape[-1] // (PATCH * SHRINK)
        lines: Tensor = self.projector(self.features(pixels)).unflatten(1, (side, side))
        return lines

    def view(self, lines: Tensor) -> Tensor:
        """Lines of features [N, s, s, D] of whole images -> [N, s * (s + 1) + 1, D]."""
        count, width = len(lines), lines.shape[-1]
        separator = self.view_separator.to(lines.dtype).expand(count, 1, width)
        return torch.cat([self._with_newlines(lines).flatten(1, 2), separator], dim=1)

    def tiles(self, lines: Tensor, columns: int) -> Tensor:
        """Lines of features [rows * columns, t, t, D] of the tiles of an image, row by row, put
        together -> [rows * t * (columns * t + 1), D]."""
        _, side, _, width = lines.shape
        whole = lines.view(-1, columns, side, side, width).transpose(1, 2)
        return self._with_newlines(whole.reshape(1, -1, columns * side, width)).flatten(0, 2)

    def _with_newlines(self, lines: Tensor) -> Tensor:
        """[N, h, w, D] -> [N, h, w + 1, D]."""
        count, height, _, width = lines.shape
        newline = self.image_newline.to(lines.dtype).expand(count, height, 1, width)
        return torch.cat([lines, newline], dim=2)
