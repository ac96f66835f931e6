"""Attention by samples equals one masked attention over the row, values and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask
from torch.utils.flop_counter import FlopCounterMode

from ocrtrain.model.attention import (
    BLOCK,
    Lengths,
    PackedRows,
    attend,
    block_mask,
    starts_of,
)

ROWS = ((3, 11, 1, 6), (21,), (1,) * 21)


def rows(way: str, lengths: Lengths = ROWS, device: str = "cpu") -> PackedRows:
    return PackedRows(way, lengths, starts_of(lengths).to(device))


def tensors(length: int = 21, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    shape = len(ROWS), length, 2, 16
    # As in the decoder: heads are a transposed view of [B, T, heads, D].
    return [
        torch.randn(shape, generator=draw).to(dtype).transpose(1, 2).requires_grad_()
        for _ in range(3)
    ]


def visible(lengths: Lengths) -> Tensor:
    """Which keys a query sees, bool [B, T, T], written out."""
    number = torch.stack(
        [torch.repeat_interleave(torch.tensor(row)) for row in lengths]  # the sample of a position
    )
    same = number[:, :, None] == number[:, None, :]
    return same & torch.ones_like(same).tril()


def masked(query: Tensor, key: Tensor, value: Tensor, lengths: Lengths = ROWS) -> Tensor:
    """One attention over whole rows, with the mask written out."""
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=visible(lengths)[:, None].to(query.device), scale=0.3
    ).transpose(1, 2)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 6e-2)])
def test_samples_alone_equal_a_masked_row(dtype: torch.dtype, tolerance: float) -> None:
    found = []
    for compute in (
        lambda q, k, v: attend(nn.Identity(), q, k, v, None, scaling=0.3, packed=rows("sdpa"))[0],
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
        attend(nn.Identity(), *tensors(), None, scaling=0.3, packed=rows("sdpa"))
    squares = sum(length * length for row in ROWS for length in row)
    assert counter.get_total_flops() == 2 * 2 * squares * 2 * 16


@pytest.mark.parametrize("new", [1, 2, 5, 21])
def test_positions_in_the_cache_are_seen(new: int) -> None:
    query, key, value = (one.detach() for one in tensors())
    whole, _ = attend(nn.Identity(), query, key, value, None, scaling=0.3)
    last, _ = attend(nn.Identity(), query[:, :, -new:], key, value, None, scaling=0.3)
    torch.testing.assert_close(last, whole[:, -new:], rtol=0, atol=1e-6)


LONG = ((300, 5, 79), (1, 254, 129), (384,), (128, 128, 128))
"""Rows whose samples end at, before and after the end of a block."""


@given(
    st.lists(st.lists(st.integers(1, 2 * BLOCK), min_size=1, max_size=4), min_size=1, max_size=3)
)
@settings(max_examples=25, deadline=None)
def test_the_block_mask_is_that_of_the_mask_written_out(samples: list[list[int]]) -> None:
    """torch makes it of the whole mask; ours of the starts alone."""
    longest = max(map(sum, samples))
    lengths = tuple(
        (*row, longest - sum(row)) if sum(row) < longest else (*row,) for row in samples
    )
    seen = visible(lengths)
    made = block_mask(lengths, starts_of(lengths))
    wanted = create_block_mask(
        lambda b, h, q, k: seen[b, q, k], len(lengths), 1, longest, longest, device="cpu"
    )
    for part in ("kv", "full_kv", "q", "full_q"):
        counts, numbers = (
            [getattr(mask, f"{part}_{what}") for mask in (made, wanted)]
            for what in ("num_blocks", "indices")
        )
        assert torch.equal(*counts), part
        used = torch.arange(numbers[0].shape[-1]) < counts[0][..., None]
        assert torch.equal(*(one.masked_fill(~used, -1) for one in numbers)), part
    at = torch.arange(longest)
    batch = torch.arange(len(lengths))[:, None, None]
    assert torch.equal(made.mask_mod(batch, 0, at[:, None], at), seen)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_equals_a_masked_row() -> None:
    """Its output; a CPU has no backward pass of it."""
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(4, 2, 384, 16, generator=draw) for _ in range(3))
    found, _ = attend(
        nn.Identity(), query, key, value, None, scaling=0.3, packed=rows("flex", LONG)
    )
    torch.testing.assert_close(found, masked(query, key, value, LONG), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("way", ["flex", "varlen"])
def test_ways_of_a_gpu_equal_a_masked_row(way: str) -> None:
    """Outputs and gradients, in bf16."""
    found = []
    for compute in (
        lambda q, k, v: attend(
            nn.Identity(), q, k, v, None, scaling=0.3, packed=rows(way, LONG, "cuda")
        )[0],
        lambda q, k, v: masked(q, k, v, LONG),
    ):
        draw = torch.Generator().manual_seed(0)
        inputs = [
            torch.randn(4, 2, 384, 16, generator=draw).to("cuda", torch.bfloat16).requires_grad_()
            for _ in range(3)
        ]
        output = compute(*inputs)
        output.float().square().sum().backward()
        found.append([output.detach(), *(one.grad for one in inputs)])
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=6e-2, atol=6e-2)
