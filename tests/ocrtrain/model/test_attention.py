"""Attention by samples equals one masked attention over the row, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ocrtrain.model.attention import attend

ROWS = ((3, 11, 1, 6), (21,), (1,) * 21)


def tensors(length: int = 21, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    shape = len(ROWS), length, 2, 16
    # As in the decoder: heads are a transposed view of [B, T, heads, D].
    return [
        torch.randn(shape, generator=draw).to(dtype).transpose(1, 2).requires_grad_()
        for _ in range(3)
    ]


def masked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """One attention over whole rows, with the mask written out."""
    number = torch.stack(
        [torch.repeat_interleave(torch.tensor(row)) for row in ROWS]  # the sample of each position
    )
    same = number[:, :, None] == number[:, None, :]
    mask = same & torch.ones_like(same).tril()
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask[:, None], scale=0.3
    ).transpose(1, 2)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 6e-2)])
def test_samples_alone_equal_a_masked_row(dtype: torch.dtype, tolerance: float) -> None:
    found = []
    for compute in (
        lambda q, k, v: attend(nn.Identity(), q, k, v, None, scaling=0.3, lengths=ROWS)[0],
        masked,
    ):
        inputs = tensors(dtype=dtype)
        output = compute(*inputs)
        output.square().sum().backward()
        found.append([output.detach(), *(one.grad for one in inputs)])
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=tolerance, atol=tolerance)


def test_packed_rows_take_the_flops_of_their_samples() -> None:
    # The counter does not know the CPU's fused kernel.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        attend(nn.Identity(), *tensors(), None, scaling=0.3, lengths=ROWS)
    squares = sum(length * length for row in ROWS for length in row)
    assert counter.get_total_flops() == 2 * 2 * squares * 2 * 16


@pytest.mark.parametrize("new", [1, 2, 5, 21])
def test_positions_in_the_cache_are_seen(new: int) -> None:
    query, key, value = (one.detach() for one in tensors())
    whole, _ = attend(nn.Identity(), query, key, value, None, scaling=0.3)
    last, _ = attend(nn.Identity(), query[:, :, -new:], key, value, None, scaling=0.3)
    torch.testing.assert_close(last, whole[:, -new:], rtol=0, atol=1e-6)
