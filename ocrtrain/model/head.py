"""The loss head: logits, soft cap and cross-entropy of hidden states, and their gradients in the
same pass.

The gradients are computed with the loss, so that the backward pass only scales them: the logits of
a chunk of positions are computed once, and are gone before those of the next. Nothing of the size
of all logits (65,537 per position) is ever in memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

SOFTCAP = 15.0  # nanochat: logits = 15 * tanh(logits / 15)
HEAD_CHUNK = 1024  # positions whose logits are in memory at a time: x 65,537 x 4 B = 0.27 GB


def soft_cap(logits: Tensor) -> Tensor:
    """nanochat's soft cap: logits of any shape -> fp32 logits within (-15, 15)."""
    return SOFTCAP * torch.tanh(logits.float() / SOFTCAP)


def summed_loss(states: Tensor, targets: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of states [K, D] against targets [K]: summed, an fp32 scalar in nats, and of
    each, fp32 [K] without a graph.

    `weight` [V, D] is the head's. Products are in autocast's type where it is on, else in that of
    the weight; soft cap, softmax and sums are in fp32. K may be 0. The scalar has a graph where
    gradients are enabled and states or weight need one. It can be differentiated once.
    """
    kind = states.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    needed = torch.is_grad_enabled() and (states.requires_grad or weight.requires_grad)
    found: tuple[Tensor, Tensor] = _SummedLoss.apply(states, targets, weight, dtype, needed)  # type: ignore[no-untyped-call]
    return found


class _SummedLoss(torch.autograd.Function):
    """`summed_loss` with its gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        targets: Tensor,
        weight: Tensor,
        dtype: torch.dtype,
        needed: bool,
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(states.device.type, enabled=False):
            losses = torch.empty(len(targets), dtype=torch.float32, device=states.device)
            total = torch.zeros((), dtype=torch.float32, device=states.device)
            of_states = torch.empty_like(states) if needed and states.requires_grad else None
            of_weight = (
                torch.zeros_like(weight, dtype=torch.float32)
                if needed and weight.requires_grad
                else None
            )
            table = weight.to(dtype)
            for start in range(0, len(targets), HEAD_CHUNK):
                chunk = slice(start, start + HEAD_CHUNK)
                inputs, labels = states[chunk].to(dtype), targets[chunk, None]
                logits = F.linear(inputs, table)
                # In fp32 this is the memory of the logits.
                tangents = logits.float().div_(SOFTCAP).tanh_()
                # |15 tanh| <= 15: no exponential overflows, and no maximum need be subtracted.
                weights = (tangents * SOFTCAP).exp_()
                sums = weights.sum(dim=1, keepdim=True)
                losses[chunk] = (sums.log() - SOFTCAP * tangents.gather(1, labels)).squeeze(1)
                total += losses[chunk].sum()
                if not needed:
                    continue
                # d loss / d capped = softmax - one-hot; d capped / d logits = 1 - tanh^2.
                weights /= sums
                weights.scatter_add_(1, labels, torch.full_like(sums, -1.0))
                weights *= tangents.square_().neg_().add_(1.0)
                slopes = weights if dtype == torch.float32 else logits.copy_(weights)
                if of_states is not None:
                    of_states[chunk] = slopes @ table
                if of_weight is not None:
                    if dtype == torch.float32:
                        torch.addmm(of_weight, slopes.t(), inputs, out=of_weight)
                    else:  # the product in the lower type, the sum of chunks in fp32
                        of_weight += slopes.t() @ inputs
        ctx.save_for_backward(of_states, of_weight)
        ctx.weight_type = weight.dtype
        ctx.mark_non_differentiable(losses)
        return total, losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        of_states, of_weight = ctx.saved_tensors
        # In place: a second backward pass is an error of torch's.
        of_states = None if of_states is None else of_states.mul_(scale)
        of_weight = None if of_weight is None else of_weight.mul_(scale).to(ctx.weight_type)
        return of_states, None, of_weight, None, None
