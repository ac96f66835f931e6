"""Parameters and FLOPs of a model by part, computed from its config; no model is built.

Only matrix products and convolutions are counted, a multiply-add as two FLOPs, as torch's counter
does. Element-wise operations and recomputed activations are not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ocrtrain.settings.image_slots import PATCH, SHRINK, image_slots
from ocrtrain.settings.model_config import PARTS, ModelConfig

_PATCH_PIXELS = 3 * PATCH * PATCH


def parameters(config: ModelConfig) -> dict[str, int]:
    """Number of parameters by part; the newline and the separator count as the projector's.

    At full size SAM has 95,569,152 with its two strided convolutions, CLIP 302,575,616 (303,177,728
    with the patch embedding, which is never used), and the decoder 560,990,720.
    """
    return {
        "sam": _sam(config),
        "clip": _clip(config),
        "projector": (config.clip_width + config.sam_out + 3) * config.gpt_width,
        "gpt": _gpt(config),
    }


def _sam(config: ModelConfig) -> int:
    width, head = config.sam_width, config.sam_width // config.sam_heads
    block = _block(width, config.sam_mlp)
    relative = sum(
        2 * (2 * (config.sam_grid if layer in config.sam_global_layers else config.sam_window) - 1)
        for layer in range(config.sam_layers)
    )
    stem = (_PATCH_PIXELS + 1) * width + config.sam_grid**2 * width
    neck = width * config.sam_neck + 9 * config.sam_neck**2 + 4 * config.sam_neck
    strided = 9 * config.sam_mid * (config.sam_neck + config.sam_out)
    return config.sam_layers * block + relative * head + stem + neck + strided


def _clip(config: ModelConfig) -> int:
    width = config.clip_width
    embeddings = (config.clip_grid**2 + 1) * width + width  # positions, class token
    return config.clip_layers * _block(width, config.clip_mlp) + embeddings + 2 * width


def _block(width: int, mlp: int) -> int:
    """Parameters of a block: qkv and output with biases, MLP with biases, two norms."""
    return 4 * width * (width + 1) + 2 * width * mlp + mlp + width + 4 * width


def _gpt(config: ModelConfig) -> int:
    """Parameters of blocks, embedding and head."""
    blocks = config.gpt_layers * (4 * config.gpt_width**2 + 2 * config.gpt_width * config.gpt_mlp)
    return blocks + 2 * embedding(config)


def embedding(config: ModelConfig) -> int:
    """Number of parameters of the token embedding, a lookup that takes no FLOPs."""
    return config.vocab_size * config.gpt_width


def image_flops(config: ModelConfig, image_size: int) -> dict[str, float]:
    """Forward FLOPs of one image of `image_size` px, by part of the encoder.

    1024 px -> SAM 977 G, CLIP 162 G. Raises UsageError unless the size is a multiple of 64.
    """
    image_slots(image_size)  # raises for a wrong size
    features = (image_size // PATCH // SHRINK) ** 2
    both = config.clip_width + config.sam_out
    return {
        "sam": _sam_flops(config, image_size // PATCH),
        "clip": _clip_flops(config, features + 1),
        "projector": 2.0 * features * both * config.gpt_width,
    }


def _sam_flops(config: ModelConfig, side: int) -> float:
    """Forward FLOPs of SAM on one image of side x side patches."""
    width, window, patches = config.sam_width, config.sam_window, side * side
    full = len(set(config.sam_global_layers))
    padded = (-(-side // window) * window) ** 2  # the last attention windows are zero-padded

    def attention(positions: int, reach: int) -> float:
        """qkv and output; scores and values for reach^2 keys; two relative-position products."""
        products = 4 * width * width + 2 * reach * reach * width + 2 * reach * width
        return 2.0 * positions * products

    layers = full * attention(patches, side)
    layers += (config.sam_layers - full) * attention(padded, window)
    mlp = config.sam_layers * 2.0 * patches * 2 * width * config.sam_mlp
    neck = 2.0 * patches * (width * config.sam_neck + 9 * config.sam_neck**2)
    first = 2.0 * (patches / 4) * 9 * config.sam_neck * config.sam_mid
    second = 2.0 * (patches / 16) * 9 * config.sam_mid * config.sam_out
    return _stem_flops(config, side) + layers + mlp + neck + first + second


def _stem_flops(config: ModelConfig, side: int) -> float:
    return 2.0 * side * side * config.sam_width * _PATCH_PIXELS


def _clip_flops(config: ModelConfig, positions: int) -> float:
    width = config.clip_width
    products = config.clip_layers * (4 * width * width + 2 * width * config.clip_mlp)
    return 2.0 * positions * products + _clip_attention(config, positions)


def _clip_attention(config: ModelConfig, positions: int) -> float:
    return config.clip_layers * 4.0 * positions**2 * config.clip_width


def decoder_flops(config: ModelConfig, tokens: int, squares: int) -> float:
    """Forward FLOPs of the decoder's blocks on samples with `tokens` token ids in total.

    `squares` is the sum of the squared sample lengths. A position attends to itself and to the
    earlier positions of its sample: length * (length + 1) / 2 pairs, half of what a kernel without
    a causal mask computes.
    """
    width = config.gpt_width
    products = config.gpt_layers * (4 * width * width + 2 * width * config.gpt_mlp)
    return 2.0 * tokens * products + _decoder_attention(config, tokens, squares)


def _decoder_attention(config: ModelConfig, tokens: int, squares: int) -> float:
    return config.gpt_layers * 2.0 * (squares + tokens) * config.gpt_width


def head_flops(config: ModelConfig, positions: int) -> float:
    """Forward FLOPs of the output head on `positions` hidden states."""
    return 2.0 * positions * config.gpt_width * config.vocab_size


ADAMW_FLOPS = 14
"""Operations of AdamW a parameter (Loshchilov and Hutter 2019, algorithm 2): decay 1, first moment
3, second moment 4, denominator (root, correction of its bias, epsilon) 3, step (quotient, rate,
difference) 3."""


MUON_FLOPS = 9
"""Element-wise operations of Muon an element of a matrix (`ocrtrain/run/muon.py`): momentum 3, what
Nesterov adds 3, decay 1, step 2."""

MUON_PRODUCTS = 11
"""Products of two Gram matrices in Muon's iteration."""


def matrices(config: ModelConfig) -> dict[str, dict[tuple[int, int], int]]:
    """By part: (rows, columns) of the weights that Muon updates, and how many have this shape."""
    sam, neck, clip, gpt = config.sam_width, config.sam_neck, config.clip_width, config.gpt_width
    of_sam = [(sam, _PATCH_PIXELS), (neck, sam), (neck, 9 * neck), (config.sam_mid, 9 * neck),
              (config.sam_out, 9 * config.sam_mid)]  # fmt: skip
    layer = [(3 * sam, sam), (sam, sam), (config.sam_mlp, sam), (sam, config.sam_mlp)]
    return {
        "sam": Counter(of_sam + config.sam_layers * layer),
        "clip": Counter(config.clip_layers * _block_matrices(clip, config.clip_mlp)),
        "projector": {(gpt, clip + config.sam_out): 1},
        "gpt": Counter(config.gpt_layers * _block_matrices(gpt, config.gpt_mlp)),
    }


def _block_matrices(width: int, mlp: int) -> list[tuple[int, int]]:
    """Queries, keys, values and output, and the two of the MLP."""
    return 4 * [(width, width)] + [(mlp, width), (width, mlp)]


def matrix_elements(config: ModelConfig, *, frozen: Collection[str] = ()) -> int:
    """Number of parameters in the matrices of the trained parts."""
    return sum(
        rows * columns * number
        for part, shapes in matrices(config).items()
        if part not in frozen
        for (rows, columns), number in shapes.items()
    )


def orthogonalising_flops(config: ModelConfig, *, frozen: Collection[str] = ()) -> float:
    """FLOPs of the matrix products of one update by Muon: the Gram matrix of the shorter side, the
    iteration on it, and its product with the whole."""
    total = 0
    for part, shapes in matrices(config).items():
        for (rows, columns), number in shapes.items():
            short, long = sorted((rows, columns))
            products = 2 * long + MUON_PRODUCTS * short
            total += 0 if part in frozen else number * 2 * short * short * products
    return float(total)


def optimizer_flops(
    config: ModelConfig, *, optimizer: str = "adamw", frozen: Collection[str] = ()
) -> float:
    """FLOPs of an update of the trained parts by `optimizer`, that of --optimizer. In no other
    number here, nor in MFU."""
    counts = parameters(config)
    trained = sum(counts[part] for part in PARTS if part not in frozen)
    if optimizer != "muon":
        return float(ADAMW_FLOPS * trained)
    of_muon = matrix_elements(config, frozen=frozen)
    products = orthogonalising_flops(config, frozen=frozen)
    return products + MUON_FLOPS * of_muon + ADAMW_FLOPS * (trained - of_muon)


class Workload(NamedTuple):
    """What a step or a run trains on, as far as FLOPs depend on it. `images` are numbers of images
    by the side of their square view in px."""

    images: Mapping[int, int]
    tokens: int
    squares: int  # sum of the squared sample lengths
    supervised: int  # positions whose loss is computed


class Flops(NamedTuple):
    """FLOPs of the vision encoder (SAM, CLIP and projector) and of the decoder."""

    vision: float
    text: float

    @property
    def total(self) -> float:
        """FLOPs of the whole model."""
        return self.vision + self.text


def training_flops(
    config: ModelConfig, workload: Workload, *, frozen: Collection[str] = ()
) -> Flops:
    """FLOPs to train on the workload, independent of how samples are batched.

    A trained part costs three times its forward pass: outputs, gradients of the weights, gradients
    of the inputs. The first product of the model needs no gradient of its inputs. A frozen part
    costs once its forward pass, or twice where an earlier part is trained; its attention, which
    multiplies two inputs, then costs three times.
    """
    forward = dict.fromkeys(PARTS, 0.0)
    # CLIP and the decoder begin with trained embeddings, not with a product.
    stem = clip_attention = 0.0
    for size, count in workload.images.items():
        for name, cost in image_flops(config, size).items():
            forward[name] += count * cost
        stem += count * _stem_flops(config, size // PATCH)
        positions = (size // PATCH // SHRINK) ** 2 + 1
        clip_attention += count * _clip_attention(config, positions)
    forward["gpt"] += decoder_flops(config, workload.tokens, workload.squares)
    forward["gpt"] += head_flops(config, workload.supervised)
    first = {"sam": stem, "projector": forward["projector"]}
    attention = {
        "clip": clip_attention,
        "gpt": _decoder_attention(config, workload.tokens, workload.squares),
    }
    costs, before = dict.fromkeys(PARTS, 0.0), False
    for part in PARTS:
        trained = part not in frozen
        costs[part] = forward[part] * (1 + trained + (trained or before))
        if trained and not before:
            costs[part] -= first.get(part, 0.0)
        if before and not trained:
            costs[part] += attention.get(part, 0.0)
        before = (before or trained) and any(workload.images.values())
    return Flops(sum(costs.values()) - costs["gpt"], costs["gpt"])


def step_flops(
    config: ModelConfig,
    *,
    images: Mapping[int, int],
    row_lengths: Sequence[int],
    supervised: int | None = None,
    frozen: Collection[str] = (),
) -> float:
    """FLOPs to train on `images`, numbers by their side in px, and on samples of `row_lengths`
    token ids: vision and decoder.

    `supervised` is the number of positions whose loss is computed; None counts all of them, which
    gives the usual 6 N FLOPs per token.
    """
    tokens = sum(row_lengths)
    workload = Workload(
        images,
        tokens,
        sum(length * length for length in row_lengths),
        tokens if supervised is None else supervised,
    )
    return training_flops(config, workload, frozen=frozen).total
