"""Attention of the decoder: causal, within each sample of a row.

A mask over a packed row costs the square of the row's length in time and memory. Each of the `WAYS`
costs the sum of the squares of its samples', which is what `ocrtrain.cost.flops` counts:

    sdpa    samples one at a time, each by torch's fused causal kernel: everywhere
    flex    one call of flex_attention, whose block mask leaves out blocks between samples: GPUs
    varlen  one call of flash attention for samples of any length: GPUs, in bf16

It is registered with `transformers` under `NAME`. No mask is made for such a name, so that
`transformers` does not look for packed samples on the device and wait for the answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

NAME = "ocr_samples"
BLOCK = 128  # positions of a block of flex_attention's mask: its default

Lengths = tuple[tuple[int, ...], ...]
"""Of the samples of each row (`ModelInputs.lengths`)."""


def register() -> str:
    """Make the attention known to `transformers`; returns its name. Idempotent."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    return NAME


class PackedRows:
    """The samples of packed rows, and what the way of attending to them needs, made once for all
    layers of a pass.

    `lengths` are those of the samples of B rows of T positions; `starts`, int32 [S + 1], is where
    the S samples begin in the flattened rows, and B * T.
    """

    def __init__(self, way: str, lengths: Lengths, starts: Tensor) -> None:
        self.lengths, self.starts = lengths, starts
        self.longest = max(length for row in lengths for length in row)
        self.attend = WAYS[way]
        self.mask = block_mask(lengths, starts) if way == "flex" else None


def packed_rows(
    lengths: Lengths,
    device: torch.device,
    *,
    way: str = "sdpa",
    starts: Tensor | None = None,
) -> PackedRows | None:
    """What the decoder takes as `packed` for rows of samples of these lengths: None where every row
    is one sample. `starts`, as in `PackedRows`, if they are on the device already."""
    if all(len(row) == 1 for row in lengths):
        return None
    return PackedRows(way, lengths, starts_of(lengths).to(device) if starts is None else starts)


def starts_of(lengths: Lengths) -> Tensor:
    """Where samples begin in the flattened rows, and where the last one ends: int32 [S + 1]."""
    flat = torch.tensor([0, *(length for row in lengths for length in row)])
    return flat.cumsum(0).to(torch.int32)


def attend(  # noqa: PLR0913 - the signature is that of `transformers`
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    packed: PackedRows | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Queries [B, heads, T, D] against keys and values [B, heads, S, D] -> [B, T, heads, D].

    `packed` describes rows of several samples. None: each row is one sample, whose first S - T
    positions are in the cache. `attention_mask`, bool [B, 1, T, S]: what is attended to, where rows
    in a cache are of different lengths.
    """
    if packed is not None:
        return packed.attend(query, key, value, scaling, packed), None
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


def _sdpa(query: Tensor, key: Tensor, value: Tensor, scaling: float, packed: PackedRows) -> Tensor:
    """[B, heads, T, D] three times -> [B, T, heads, D], sample by sample."""
    flat = [length for row in packed.lengths for length in row]
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


def _flex(query: Tensor, key: Tensor, value: Tensor, scaling: float, packed: PackedRows) -> Tensor:
    """The same by flex_attention. On a CPU it has no backward pass."""
    tensors = _in_one_type(query, key, value)
    output: Tensor = _flex_attention(query.device.type)(
        *tensors, block_mask=packed.mask, scale=scaling
    )
    return output.transpose(1, 2).contiguous()


@cache
def _flex_attention(kind: str) -> Callable[..., Tensor]:
    """flex_attention, compiled for GPUs: without its kernel it would make the whole matrix."""
    from torch.nn.attention.flex_attention import flex_attention

    function: Any = flex_attention
    return torch.compile(function, dynamic=True) if kind == "cuda" else function


def block_mask(lengths: Lengths, starts: Tensor) -> Any:
    """flex_attention's mask of packed rows: a query sees the keys from the start of its sample on.

    Which blocks of keys a block of queries sees follows from the starts alone. (torch's own way to
    it makes the mask of all pairs, B x T x T.)
    """
    from torch.nn.attention.flex_attention import BlockMask

    rows, length = len(lengths), sum(lengths[0])
    blocks = -(-length // BLOCK)
    positions = torch.arange(rows * length, dtype=torch.int32, device=starts.device)
    sample = torch.bucketize(positions, starts[1:], right=True)
    start = starts[sample].view(rows, length)
    start = start - torch.arange(rows, device=starts.device)[:, None] * length  # within the row
    first = torch.arange(blocks, device=starts.device) * BLOCK
    last = (first + BLOCK - 1).clamp(max=length - 1)
    # Starts only grow along a row: those of a block lie between those of its ends.
    least, most = start[:, first, None], start[:, last, None]  # [B, blocks of queries, 1]
    seen = (first[None, None] <= first[None, :, None]) & (last[None, None] >= least)
    full = seen & (first[None, None] < first[None, :, None]) & (first[None, None] >= most)
    full &= (first + BLOCK <= length)[None, :, None]  # as torch has it for the rest of a row

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (key >= start[batch, query])

    return BlockMask.from_kv_blocks(
        *_numbered(seen & ~full),
        *_numbered(full),
        BLOCK_SIZE=BLOCK,
        mask_mod=visible,
        seq_lengths=(length, length),
    )


def _numbered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """bool [B, n, n] -> how many are set in each line, and their numbers, first: int32 [B, 1, n]
    and [B, 1, n, n]."""
    numbers = blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[:, None], numbers.to(torch.int32)[:, None]


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, packed: PackedRows
) -> Tensor:
    """The same by flash attention over samples of any length, on CUDA in bf16 or fp16."""
    from torch.nn.attention.varlen import varlen_attn

    names = inspect.signature(varlen_attn).parameters
    # torch 2.10 has `is_causal` and no scale, later versions a window.
    options: dict[str, Any] = (
        {"is_causal": True} if "is_causal" in names else {"window_size": (-1, 0)}
    )
    if "scale" in names:
        options["scale"] = scaling
    else:
        query = query * (scaling * query.shape[-1] ** 0.5)
    rows, _, positions, _ = query.shape
    flat = [one.transpose(1, 2).flatten(0, 1) for one in _in_one_type(query, key, value)]
    starts, longest = packed.starts, packed.longest
    function: Any = varlen_attn
    joined: Tensor = function(*flat, starts, starts, longest, longest, **options)
    return joined.view(rows, positions, *joined.shape[1:])


def _in_one_type(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in autocast's type where it is on: queries and keys come out of their norms in
    fp32, and only sdpa is known to autocast."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(kind)) for tensor in tensors)


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor, float, PackedRows], Tensor]] = {
    "sdpa": _sdpa,
    "flex": _flex,
    "varlen": _varlen,
}
"""Ways of `--attention`. All give the same numbers but for rounding."""
