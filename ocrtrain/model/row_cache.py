"""Keys and values of rows that are decoded together: they grow at the end, and rows come and go.

Rows are aligned at their ends. A shorter one begins with padding, which `padding` counts and
`seen` hides from attention. It takes the place of a cache of `transformers`, of which the decoder
uses `update` alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


class RowCache:
    """Keys and values [B, heads, S, d] of each layer. `padding` has, for each row, how many of its
    S positions are not its own: they come first."""

    def __init__(self, padding: Sequence[int] = ()) -> None:
        self.padding = list(padding)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __len__(self) -> int:
        """The number of positions, S."""
        return self.keys[0].shape[2] if self.keys else 0

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Append keys and values [B, heads, T, d] to those of a layer; returns all of them."""
        if layer == len(self.keys):
            self.keys.append(keys)
            self.values.append(values)
        else:
            self.keys[layer] = torch.cat([self.keys[layer], keys], dim=2)
            self.values[layer] = torch.cat([self.values[layer], values], dim=2)
        return self.keys[layer], self.values[layer]

    def seen(self, new: int, device: torch.device) -> Tensor | None:
        """Which positions the `new` next ones of each row attend to, bool [B, 1, new, S + new];
        None where no row is padded."""
        if not any(self.padding):
            return None
        total = len(self) + new
        begins = torch.tensor(self.padding, device=device).view(-1, 1, 1, 1)
        places = torch.arange(total, device=device)
        return (places >= begins) & (places <= places[-new:, None])

    def join(self, other: RowCache) -> None:
        """Append the rows of another cache, of the same layers."""
        if not self.padding:
            self.padding, self.keys, self.values = other.padding, other.keys, other.values
            return
        longest = max(len(self), len(other))
        self.padding = [
            count + longest - len(cache) for cache in (self, other) for count in cache.padding
        ]
        for ours, theirs in ((self.keys, other.keys), (self.values, other.values)):
            for layer, (one, two) in enumerate(zip(ours, theirs, strict=True)):
                ours[layer] = torch.cat([_to_length(one, longest), _to_length(two, longest)])

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows alone, and no position that is padding in all of them."""
        self.padding = [self.padding[row] for row in rows]
        if not rows:
            self.keys, self.values = [], []
            return
        first = min(self.padding)
        self.padding = [count - first for count in self.padding]
        for tensors in (self.keys, self.values):
            chosen = torch.tensor(list(rows), device=tensors[0].device)
            for layer, tensor in enumerate(tensors):
                tensors[layer] = tensor.index_select(0, chosen)[:, :, first:]


def _to_length(tensor: Tensor, length: int) -> Tensor:
    """[B, heads, S, d] -> [B, heads, length, d], zeros first."""
    return F.pad(tensor, (0, 0, length - tensor.shape[2], 0))
