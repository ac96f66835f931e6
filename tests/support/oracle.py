"""A second implementation of the model, in plain torch functions over named tensors: the oracle.

It uses nothing of `transformers` or `ocrtrain`. Tensor names are the originals': DeepSeek-OCR's
encoder (fused qkv) and nanochat's GPT of 2025-12. Attention is written out, so that no fused kernel
is shared with the code under test. Shapes: images [N, 3, S, S], tokens [N, T, D].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v over the last two dimensions."""
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return torch.softmax(scores if bias is None else scores + bias, dim=-1) @ v


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    out = x @ w[f"{name}.weight"].T
    return out + w[f"{name}.bias"] if f"{name}.bias" in w else out


def layer_norm(w: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + eps)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def resize_grid(grid: Tensor, side: int) -> Tensor:
    """Position embeddings [G, G, D] -> [side, side, D]."""
    if grid.shape[0] == side:
        return grid
    image = grid.permute(2, 0, 1)[None]
    image = F.interpolate(image, (side, side), mode="bicubic", antialias=True, align_corners=False)
    return image[0].permute(1, 2, 0)


def relative(table: Tensor, side: int) -> Tensor:
    """Relative positions [2G-1, d] -> [side, side, d]; entry (q, k) is for the distance q - k."""
    if table.shape[0] != 2 * side - 1:
        table = F.interpolate(table.T[None], 2 * side - 1, mode="linear", align_corners=False)[0].T
    rows = [[table[q - k + side - 1] for k in range(side)] for q in range(side)]
    return torch.stack([torch.stack(row) for row in rows])


def sam_attention(w: Weights, name: str, x: Tensor, heads: int) -> Tensor:
    """[N, G, G, D] -> [N, G, G, D]; decomposed relative positions are added to the scores."""
    count, side, _, width = x.shape
    qkv = linear(w, f"{name}.qkv", x.reshape(count, side * side, width))
    q, k, v = qkv.reshape(count, side * side, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    by_position = q.reshape(count, heads, side, side, -1)
    across = torch.einsum("nhyxc,ykc->nhyxk", by_position, relative(w[f"{name}.rel_pos_h"], side))
    along = torch.einsum("nhyxc,xkc->nhyxk", by_position, relative(w[f"{name}.rel_pos_w"], side))
    bias = across[..., :, None] + along[..., None, :]
    out = attention(q, k, v, bias.reshape(count, heads, side * side, side * side))
    return linear(w, f"{name}.proj", out.transpose(1, 2).reshape(count, side, side, width))


def sam(w: Weights, pixels: Tensor, *, heads: int, window: int, full: Sequence[int]) -> Tensor:
    """[N, 3, S, S] -> [N, C, S/64, S/64]; `full` are the layers with global attention."""
    patches = F.conv2d(pixels, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=16)
    x = patches.permute(0, 2, 3, 1)
    side = x.shape[1]
    x = x + resize_grid(w["pos_embed"][0], side)
    layer = 0
    while f"blocks.{layer}.norm1.weight" in w:
        name = f"blocks.{layer}"
        y = layer_norm(w, f"{name}.norm1", x, 1e-6)
        if layer in full:
            y = sam_attention(w, f"{name}.attn", y, heads)
        else:
            y = windowed(w, f"{name}.attn", y, heads, window)
        x = x + y
        hidden = F.gelu(linear(w, f"{name}.mlp.lin1", layer_norm(w, f"{name}.norm2", x, 1e-6)))
        x = x + linear(w, f"{name}.mlp.lin2", hidden)
        layer += 1
    x = F.conv2d(x.permute(0, 3, 1, 2), w["neck.0.weight"])
    x = layer_norm(w, "neck.1", x.permute(0, 2, 3, 1), 1e-6).permute(0, 3, 1, 2)
    x = F.conv2d(x, w["neck.2.weight"], padding=1)
    x = layer_norm(w, "neck.3", x.permute(0, 2, 3, 1), 1e-6).permute(0, 3, 1, 2)
    x = F.conv2d(x, w["net_2.weight"], stride=2, padding=1)
    return F.conv2d(x, w["net_3.weight"], stride=2, padding=1)


def windowed(w: Weights, name: str, x: Tensor, heads: int, window: int) -> Tensor:
    """[N, G, G, D] -> [N, G, G, D]: attention in windows; the last ones are zero-padded."""
    side = x.shape[1]
    padded = -(-side // window) * window
    x = F.pad(x, (0, 0, 0, padded - side, 0, padded - side))
    out = torch.zeros_like(x)
    for top in range(0, padded, window):
        for left in range(0, padded, window):
            at = (slice(None), slice(top, top + window), slice(left, left + window))
            out[at] = sam_attention(w, name, x[at], heads)
    return out[:, :side, :side]


def clip(w: Weights, sam_map: Tensor, *, heads: int) -> Tensor:
    """[N, D, G, G] -> [N, 1 + G^2, D]; the class token is first."""
    count, width, side, _ = sam_map.shape
    patches = sam_map.reshape(count, width, side * side).transpose(1, 2)
    first = w["embeddings.class_embedding"].expand(count, 1, width)
    positions = w["embeddings.position_embedding.weight"]
    native = math.isqrt(len(positions) - 1)
    grid = resize_grid(positions[1:].reshape(native, native, width), side).reshape(-1, width)
    x = torch.cat([first, patches], dim=1) + torch.cat([positions[:1], grid])
    x = layer_norm(w, "pre_layrnorm", x, 1e-5)
    layer = 0
    while f"transformer.layers.{layer}.layer_norm1.weight" in w:
        name = f"transformer.layers.{layer}"
        qkv = linear(w, f"{name}.self_attn.qkv_proj", layer_norm(w, f"{name}.layer_norm1", x, 1e-5))
        q, k, v = qkv.reshape(count, -1, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        out = attention(q, k, v, None).transpose(1, 2).reshape(x.shape)
        x = x + linear(w, f"{name}.self_attn.out_proj", out)
        hidden = linear(w, f"{name}.mlp.fc1", layer_norm(w, f"{name}.layer_norm2", x, 1e-5))
        x = x + linear(w, f"{name}.mlp.fc2", hidden * torch.sigmoid(1.702 * hidden))
        layer += 1
    return x


def part(w: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): v for name, v in w.items() if name.startswith(prefix)}


def encoder(
    w: Weights, pixels: Tensor, *, heads: tuple[int, int], window: int, full: Sequence[int]
) -> Tensor:
    """[N, 3, S, S] -> [N, slots, D]; `heads` are those of SAM and of CLIP."""
    sam_map = sam(part(w, "sam_model."), pixels, heads=heads[0], window=window, full=full)
    patches = clip(part(w, "vision_model."), sam_map, heads=heads[1])[:, 1:]
    both = torch.cat([patches, sam_map.flatten(2).transpose(1, 2)], dim=-1)
    features = linear(w, "projector.layers", both)
    side = sam_map.shape[-1]
    images = []
    for image in features:
        pieces = []
        for row in range(side):
            pieces += [image[row * side : (row + 1) * side], w["image_newline"][None]]
        images.append(torch.cat([*pieces, w["view_separator"][None]]))
    return torch.stack(images)


def rms_norm(x: Tensor) -> Tensor:
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def rotate(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """[T, H, d] and positions [T] -> [T, H, d]; nanochat rotates a head's halves clockwise."""
    half = x.shape[-1] // 2
    speed = base ** (-torch.arange(half, dtype=torch.float32) / half)
    angle = positions[:, None].float() * speed
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos + second * sin, second * cos - first * sin], dim=-1)


def gpt(w: Weights, embeds: Tensor, *, heads: int, base: float = 1e4) -> Tensor:
    """Embeddings [T, D] of one sample -> soft-capped logits [T, V]."""
    length, width = embeds.shape
    positions = torch.arange(length)
    causal = torch.full((length, length), -torch.inf).triu(1)
    x = rms_norm(embeds)
    layer = 0
    while f"transformer.h.{layer}.attn.c_q.weight" in w:
        name = f"transformer.h.{layer}"
        y = rms_norm(x)
        q, k, v = (
            linear(w, f"{name}.attn.c_{which}", y).reshape(length, heads, width // heads)
            for which in "qkv"
        )
        q, k = rms_norm(rotate(q, positions, base)), rms_norm(rotate(k, positions, base))
        out = attention(q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), causal)
        x = x + linear(w, f"{name}.attn.c_proj", out.transpose(0, 1).reshape(length, width))
        hidden = linear(w, f"{name}.mlp.c_fc", rms_norm(x)).clamp(min=0).square()
        x = x + linear(w, f"{name}.mlp.c_proj", hidden)
        layer += 1
    return 15 * torch.tanh(linear(w, "lm_head", rms_norm(x)) / 15)
