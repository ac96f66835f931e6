"""The sizes of a model: frozen, and checked against each other when made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from ocrtrain.settings.fields import flag_name, raise_all, setting

PARTS = ("sam", "clip", "projector", "gpt")
"""Parts of the model, in the order in which data passes through them."""

LARGEST_MODEL = 10**7
"""Maximum of every number of a model: far above any model, and small enough to compute with."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the model. The defaults are the full model: SAM ViT-B, CLIP-L, nanochat d20.

    `clip_width` equals `sam_out`, because CLIP takes SAM's feature map as its patches. Raises
    UsageError naming the flag where a size is out of range or two sizes do not fit together.
    """

    sam_width: int = setting(768, "SAM: hidden width")
    sam_layers: int = setting(12, "SAM: number of layers")
    sam_heads: int = setting(12, "SAM: attention heads; must divide --sam-width")
    sam_mlp: int = setting(3072, "SAM: hidden width of the MLP")
    sam_window: int = setting(14, "SAM: side of an attention window, in patches of 16 px")
    sam_global_layers: tuple[int, ...] = setting(
        (2, 5, 8, 11), "SAM: layers with global attention, numbered from 0"
    )
    sam_neck: int = setting(256, "SAM: channels of the neck")
    sam_mid: int = setting(512, "SAM: output channels of the first of two stride-2 convolutions")
    sam_out: int = setting(1024, "SAM: output channels of the second stride-2 convolution")
    sam_grid: int = setting(64, "SAM: side of the position grid, in patches of 16 px")
    clip_width: int = setting(1024, "CLIP: hidden width; must equal --sam-out")
    clip_layers: int = setting(24, "CLIP: number of layers")
    clip_heads: int = setting(16, "CLIP: attention heads; must divide --clip-width")
    clip_mlp: int = setting(4096, "CLIP: hidden width of the MLP")
    clip_grid: int = setting(16, "CLIP: side of the position grid, in features of 64 px")
    gpt_width: int = setting(1280, "GPT: hidden width")
    gpt_layers: int = setting(20, "GPT: number of layers")
    gpt_heads: int = setting(10, "GPT: attention heads; must divide --gpt-width")
    gpt_mlp: int = setting(5120, "GPT: hidden width of the MLP")
    vocab_size: int = setting(
        65537, "GPT: vocabulary size, the image token included (0: the tokenizer's)"
    )
    rope_theta: float = setting(10000.0, "GPT: base of the rotary position embedding")

    def __post_init__(self) -> None:
        raise_all(self._faults())

    def _faults(self) -> Iterator[str]:
        """What is wrong, a message each."""
        if self.clip_width != self.sam_out:
            yield f"--clip-width ({self.clip_width}) must equal --sam-out ({self.sam_out})"
        for width, heads in (
            ("sam_width", "sam_heads"),
            ("clip_width", "clip_heads"),
            ("gpt_width", "gpt_heads"),
        ):
            if getattr(self, heads) < 1 or getattr(self, width) % getattr(self, heads):
                yield (
                    f"{flag_name(width)} ({getattr(self, width)}) must be a multiple of "
                    f"{flag_name(heads)} ({getattr(self, heads)})"
                )
        if self.gpt_heads > 0 and self.gpt_width // self.gpt_heads % 2:
            yield (
                f"--gpt-width ({self.gpt_width}) over --gpt-heads ({self.gpt_heads}) must be even: "
                "rotary positions turn pairs of numbers"
            )
        for item in dataclasses.fields(self):
            value, least = getattr(self, item.name), 0 if item.name == "vocab_size" else 1
            if isinstance(value, int | float) and not least <= value <= LARGEST_MODEL:
                most = f"{LARGEST_MODEL:,}"
                yield f"{flag_name(item.name)} must be from {least} to {most}, not {value}"
        if not all(0 <= layer < self.sam_layers for layer in self.sam_global_layers):
            yield (
                f"--sam-global-layers {' '.join(map(str, self.sam_global_layers))}: "
                f"layer numbers must be 0 to {self.sam_layers - 1}"
            )
