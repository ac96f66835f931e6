"""SAM's attention, without keeping its bias for the backward pass.

The bias of relative positions has one number for each pair of patches: 0.4 GB an image and global
layer at 1,024 px in bf16, which a fused kernel saves. Here it is computed again for the backward
pass from its two small terms, one per row and one per column of keys: the same bits, one addition.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


class SamAttention(nn.Module):
    """Attention over [N, H, W, C] with decomposed relative positions (MViTv2), from the layers and
    parameters of the attention of `transformers` that it replaces.

    `spare` is cleared where whole blocks are recomputed: inside of torch's checkpoint it would keep
    tensors that the checkpoint drops.
    """

    def __init__(self, replaced: Any) -> None:
        super().__init__()
        self.heads: int = replaced.num_attention_heads
        self.qkv, self.proj = replaced.qkv, replaced.proj
        self.rel_pos_h, self.rel_pos_w = replaced.rel_pos_h, replaced.rel_pos_w
        self.spare = True

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        """[N, H, W, C] -> the same shape, and None, as in `transformers`."""
        count, height, width, channels = hidden_states.shape
        qkv = self.qkv(hidden_states).reshape(count, height * width, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        places = query.reshape(count * self.heads, height, width, -1)
        rows = torch.einsum("bhwc,hkc->bhwk", places, _relative(self.rel_pos_h, height))
        columns = torch.einsum("bhwc,wkc->bhwk", places, _relative(self.rel_pos_w, width))
        # Contiguous, so that their sum is.
        output = self._attend(query, key, value, rows.contiguous(), columns.contiguous())
        output = output.view(count, self.heads, height, width, -1).permute(0, 2, 3, 1, 4)
        return self.proj(output.reshape(count, height, width, channels)), None

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor
    ) -> Tensor:
        """Attention of [N, heads, H * W, c] with the bias of two terms [N * heads, H, W, keys]."""
        shape = (*query.shape[:3], key.shape[2])
        bias = _bias(rows, columns).view(shape)
        if not (self.spare and bias.requires_grad):
            return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        storage = bias.untyped_storage()._cdata

        def pack(tensor: Tensor) -> Tensor | SparedBias:
            if tensor.untyped_storage()._cdata == storage:
                return SparedBias(rows.detach(), columns.detach(), tensor.shape, tensor.stride())
            return tensor

        def unpack(packed: Tensor | SparedBias) -> Tensor:
            return packed if isinstance(packed, Tensor) else packed.again()

        with saved_tensors_hooks(pack, unpack):
            return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


class SparedBias(NamedTuple):
    """What is kept in place of a bias."""

    rows: Tensor
    columns: Tensor
    shape: torch.Size
    stride: tuple[int, ...]

    def again(self) -> Tensor:
        """The bias, the same bits."""
        return _bias(self.rows, self.columns).as_strided(self.shape, self.stride)


def _relative(table: Tensor, side: int) -> Tensor:
    """The vectors of all pairs of `side` places, [side, side, c], from those of distances."""
    if len(table) != 2 * side - 1:  # another image size
        table = F.interpolate(table.t()[None], size=2 * side - 1, mode="linear")[0].t()
    places = torch.arange(side, device=table.device)
    return table[places[:, None] - places[None, :] + side - 1]


def _bias(rows: Tensor, columns: Tensor) -> Tensor:
    """[B, H, W, keys' rows] and [B, H, W, keys' columns] -> [B, H, W, rows, columns]."""
    return rows[..., :, None] + columns[..., None, :]
