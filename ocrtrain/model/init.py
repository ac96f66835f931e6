"""How a model starts from nothing: the one place that knows the random initialisation.

Owner of the recipe. `transformers`' own start is unusable for training SAM from scratch (its
initializer_range is 1e-10 and its position embeddings are zeros, since it is only ever loaded).
Every product here keeps the size of what passes through it, so that features of different images
differ from the first step on: from weights of std 0.02, or from residual outputs or an output head
of zeros, the encoder of a small model gave all images the same features within 200 steps and never
recovered (measured on synthetic charts; it also needs a lower learning rate than the decoder).

Each parameter has a generator of its own, seeded by the run's seed and the parameter's name, so
that a parameter's start depends on nothing else: not on the order of layers, the device, the
number of threads, or what another part of the model looks like.
"""

from __future__ import annotations

import math

import torch
import xxhash
from torch import Tensor, nn

from ocrtrain.settings.config import ModelConfig

# Positions must be told apart by what comes after them: measured on synthetic charts, 0.1 and 0.3
# beat ViT's 0.02, with which a random encoder's features say little about where things stand.
_STDS = {
    "sam.pos_embed": 0.1,
    "position_embedding.weight": 0.3,
    "class_embedding": 0.02,  # as in ViT
    "rel_pos_h": 0.02,
    "rel_pos_w": 0.02,
    "embed_tokens.weight": 1.0,  # normalised at once; its size sets how fast it learns
}
CUT = 3.0  # standard deviations beyond which values are clamped

_RESIDUAL_OUTPUTS = ("attn.proj.weight", "lin2.weight", "out_proj.weight", "fc2.weight")


def initialise(model: nn.Module, config: ModelConfig, *, seed: int) -> None:
    """Overwrite every parameter of an `OcrModel` by a function of `seed` and its name."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            start = starting_value(name, parameter, config)
            if isinstance(start, Spread):
                generator = torch.Generator(device="cpu")
                generator.manual_seed(xxhash.xxh3_64_intdigest(f"{seed}:{name}".encode()) >> 1)
                values = torch.empty(parameter.shape)
                values.normal_(0.0, start.std, generator=generator)
                parameter.copy_(values.clamp_(-CUT * start.std, CUT * start.std))
            else:
                parameter.fill_(start)
        # White paper is +1 in every pixel: it embeds to 0, and what is drawn on it to what differs.
        patches = parameters["encoder.sam.patch_embed.projection.weight"]
        bias = parameters["encoder.sam.patch_embed.projection.bias"]
        bias.copy_(-patches.sum(dim=(1, 2, 3)))


class Spread:
    """A normal distribution around 0, clamped at `CUT` standard deviations."""

    def __init__(self, std: float) -> None:
        self.std = std


def starting_value(name: str, parameter: Tensor, config: ModelConfig) -> float | Spread:
    """The recipe: a constant, or the spread a parameter is drawn from."""
    for suffix, known in _STDS.items():
        if name.endswith(suffix):
            return Spread(known)
    if name.endswith(("image_newline", "view_separator")):
        return Spread(1 / math.sqrt(config.gpt_width))
    if parameter.dim() == 1:
        return 1.0 if name.endswith("weight") else 0.0  # norms and biases
    std = 1 / math.sqrt(parameter[0].numel())
    if name.startswith("encoder.") and name.endswith(_RESIDUAL_OUTPUTS):
        # Each layer adds twice to the residual stream; this keeps the sum's size (GPT-2). The
        # decoder normalises its stream where it reads it, and does without.
        layers = config.sam_layers if name.startswith("encoder.sam.") else config.clip_layers
        std /= math.sqrt(2 * layers)
    return Spread(std)
