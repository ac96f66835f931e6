"""Random initialisation of a model's weights.

`transformers` cannot initialise SAM for training from scratch: its initializer_range is 1e-10 and
its position embeddings are zeros, because SAM is only ever loaded there. Here every product
preserves the variance of its input, so that features of different images differ from the first step
on. With weights of std 0.02, or with zeros in residual outputs or the output head, the encoder of a
small model gave all images the same features within 200 steps and never recovered (measured on
synthetic charts; the encoder also needs a lower learning rate than the decoder).

Each parameter has its own generator, seeded by `seed` and the parameter's name. Its initial values
therefore do not depend on the order of layers, the device, the number of threads, or the sizes of
other parts.
"""

from __future__ import annotations

import math

import torch
import xxhash
from torch import Tensor, nn

from ocrtrain.settings.model_config import ModelConfig

# Standard deviations by suffix of the parameter's name. Later layers must be able to distinguish
# positions: on synthetic charts 0.1 and 0.3 beat ViT's 0.02, with which the features of a random
# encoder hardly depend on where in the image something is.
_STDS = {
    "sam.pos_embed": 0.1,
    "position_embedding.weight": 0.3,
    "class_embedding": 0.02,  # as in ViT
    "rel_pos_h": 0.02,
    "rel_pos_w": 0.02,
    "embed_tokens.weight": 1.0,  # normalised by the next layer; the std sets how fast it learns
}
CLAMP = 3.0  # values are clamped to this many standard deviations

_RESIDUAL_OUTPUTS = ("attn.proj.weight", "lin2.weight", "out_proj.weight", "fc2.weight")


def initialise(model: nn.Module, config: ModelConfig, *, seed: int) -> None:
    """Overwrite every parameter of an `OcrModel` with values that depend on `seed` and its name."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            mean, std = mean_and_std(name, parameter, config)
            if std:
                generator = torch.Generator(device="cpu")
                generator.manual_seed(xxhash.xxh3_64_intdigest(f"{seed}:{name}".encode()) >> 1)
                values = torch.empty(parameter.shape)
                values.normal_(mean, std, generator=generator)
                parameter.copy_(values.clamp_(mean - CLAMP * std, mean + CLAMP * std))
            else:
                parameter.fill_(mean)
        # The pixels of white paper are +1: with this bias a white patch embeds to 0.
        patches = parameters["encoder.sam.patch_embed.projection.weight"]
        bias = parameters["encoder.sam.patch_embed.projection.bias"]
        bias.copy_(-patches.sum(dim=(1, 2, 3)))


def scale_patches(model: nn.Module, factor: float) -> None:
    """Multiply SAM's embedding of patches, weights and bias, by `factor`: what is on a patch then
    weighs more against where it is."""
    if factor != 1:
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name in ("weight", "bias"):
                parameters[f"encoder.sam.patch_embed.projection.{name}"].mul_(factor)


def mean_and_std(name: str, parameter: Tensor, config: ModelConfig) -> tuple[float, float]:
    """Mean and standard deviation of a parameter's initial values; std 0 is a constant."""
    for suffix, known in _STDS.items():
        if name.endswith(suffix):
            return 0.0, known
    if name.endswith(("image_newline", "view_separator")):
        return 0.0, 1 / math.sqrt(config.gpt_width)
    if parameter.dim() == 1:  # norms and biases
        return (1.0 if name.endswith("weight") else 0.0), 0.0
    std = 1 / math.sqrt(parameter[0].numel())
    if name.startswith("encoder.") and name.endswith(_RESIDUAL_OUTPUTS):
        # Each layer adds twice to the residual stream; this factor keeps the variance of the sum
        # (GPT-2). The decoder needs none: it normalises the stream wherever it reads it.
        layers = config.sam_layers if name.startswith("encoder.sam.") else config.clip_layers
        std /= math.sqrt(2 * layers)
    return 0.0, std
