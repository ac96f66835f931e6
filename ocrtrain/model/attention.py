"""Attention of the decoder: causal, within each sample of a row.

Samples of a packed row are attended to one at a time, each by torch's fused causal kernel, which
needs no mask. A mask over the whole row costs the square of the row's length in time and memory
where this costs the sum of the squares of its samples', which is what `ocrtrain.cost.flops` counts.

It is registered with `transformers` under `NAME`. No mask is made for such a name, so that
`transformers` does not look for packed samples on the device and wait for the answer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

NAME = "ocr_samples"


def register() -> str:
    """Make the attention known to `transformers`; returns its name. Idempotent."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    return NAME


def attend(  # noqa: PLR0913 - the signature is that of `transformers`
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    lengths: tuple[tuple[int, ...], ...] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Queries [B, heads, T, D] against keys and values [B, heads, S, D] -> [B, T, heads, D].

    `lengths`: those of the samples of each row (`ModelInputs.lengths`). None: each row is one
    sample, whose first S - T positions are in the cache. `attention_mask`, bool [B, 1, T, S]: what
    is attended to, where rows in a cache are of different lengths.
    """
    if lengths is not None and any(len(row) > 1 for row in lengths):
        return _per_sample(query, key, value, scaling, lengths), None
    new, known = query.shape[2], key.shape[2]
    mask = attention_mask
    if mask is None and 1 < new < known:
        mask = torch.ones(new, known, dtype=torch.bool, device=query.device).tril(known - new)
    output = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        scale=scaling,
        is_causal=mask is None and new == known > 1,
    )
    return output.transpose(1, 2).contiguous(), None


def _per_sample(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, lengths: tuple[tuple[int, ...], ...]
) -> Tensor:
    """[B, heads, T, D] three times -> [B, T, heads, D]."""
    flat = [length for row in lengths for length in row]
    # [B * T, heads, D]: a view, since heads are split off after the projection.
    queries, keys, values = (
        torch.split(tensor.transpose(1, 2).flatten(0, 1), flat) for tensor in (query, key, value)
    )
    outputs = [
        F.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            k.transpose(0, 1)[None],
            v.transpose(0, 1)[None],
            scale=scaling,
            is_causal=True,
        )[0].transpose(0, 1)
        for q, k, v in zip(queries, keys, values, strict=True)
    ]
    rows, _, positions, _ = query.shape
    joined = torch.cat(outputs)
    return joined.view(rows, positions, *joined.shape[1:])
