"""Muon (Jordan and others 2024): momentum whose singular values are all made about 1.

In: matrices and convolution kernels with gradients, and an AdamW for all other parameters. Out: the
updated parameters. A kernel [out, in, height, width] is the matrix [out, in * height * width].

The orthogonal factor U V^T of a momentum X = U S V^T is approximated by an odd polynomial of X
(Newton and Schulz's iteration). Its factors are functions of the Gram matrix of the shorter side,
which commute: so the iteration runs on these small symmetric matrices, batched over all that have
the same size, and X itself is multiplied only twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

STAGES = (
    (14.53533463, -140.97390844, 467.8013336, -600.48300109, 261.04758225),
    (5.82709534, -13.67222657, 11.8147498, -4.01701177, 0.46561536),
    (2.34280806, -1.70647864, 0.42287684),
)
"""Coefficients of p(A) = a + b A + c A^2 (+ d A^3 + e A^4): a stage takes a singular value s to
s p(s^2). Each is the odd polynomial with the least maximum error from 1 on the interval into which
the stages before it take [REACH, 1], by which the whole is the best of its form too (Amsel and
others 2025, theorem 3.1). The test computes them again."""

REACH = 0.005
"""Singular values from here to 1 become 1 but for `TOLERANCE`; lesser ones are multiplied by up to
198. The largest is at most 1, and at least 0.7 where a few directions dominate."""

TOLERANCE = 0.14

MATCH_ADAMW = 0.2
"""An update is multiplied by this and the root of the longer side: its root mean square is then
about that of an update of AdamW (Liu and others 2025, section 2.2)."""

MOST_ELEMENTS = 1 << 24
"""Elements that are stacked at a time: bounds the memory of an update."""

_LEAST = 1e-30  # a squared norm below this counts as no gradient


class Shards(Protocol):
    """Tensors of which each rank holds a part: `ocrtrain.run.parallel.ModelOfRanks`."""

    def gather(self, tensor: Tensor) -> Tensor:
        """The whole of a tensor. All ranks must call it."""

    def place(self, tensor: Tensor, parameter: nn.Parameter) -> Tensor:
        """What this rank holds of a whole tensor in the shape of `parameter`."""


class Muon(torch.optim.Optimizer):
    """Muon for the matrices of `groups`, and AdamW for the parameters that `adamw` was made with.

    A group is a dict of `params` with two dimensions or more, `lr`, `momentum` and `weight_decay`,
    which is decoupled: a matrix is multiplied by 1 - lr * weight_decay. `param_groups` and `state`
    are those of both. A parameter without a gradient is left as it is.

    `shards`: the parameters are parts. Each matrix is gathered then, every rank computes the whole
    update, and keeps its part.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        adamw: torch.optim.AdamW,
        *,
        shards: Shards | None = None,
    ) -> None:
        super().__init__(list(groups), {})
        self._matrices, self._adamw, self._shards = list(self.param_groups), adamw, shards
        self.param_groups += adamw.param_groups
        adamw.state = self.state

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        found = [
            _Matrix(parameter, group)
            for group in self._matrices
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        for chunk in _chunks(found):
            self._update(chunk)
        self._adamw.step()

    def _update(self, matrices: Sequence[_Matrix]) -> None:
        """Update matrices whose shorter sides are equal."""
        stacks = []
        for shape, members in groupby(matrices, key=lambda one: one.shape):
            same = list(members)
            stack = torch.empty(len(same), *shape, device=same[0].parameter.device)
            for one, place in zip(same, stack, strict=True):
                self._advance(one, place.view(one.parameter.shape))
            stacks.append(stack)
        updates = (update for stack in orthogonal_factors(stacks) for update in stack)
        for one, update in zip(matrices, updates, strict=True):
            parameter, rate = one.parameter, one.group["lr"]
            update = update.view(parameter.shape)
            if self._shards:
                update = self._shards.place(update, parameter)
            if one.group["weight_decay"]:
                parameter.mul_(1 - rate * one.group["weight_decay"])
            parameter.add_(update, alpha=-rate * MATCH_ADAMW * math.sqrt(max(one.shape)))

    def _advance(self, one: _Matrix, ahead: Tensor) -> None:
        """Take a gradient into the momentum, and write both as Nesterov has them into `ahead`."""
        state, gradient, beta = self.state[one.parameter], one.parameter.grad, one.group["momentum"]
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(one.parameter)
        momentum = state["momentum"].lerp_(gradient, 1 - beta)
        if self._shards:
            ahead.copy_(self._shards.gather(torch.lerp(gradient, momentum, beta)))
        else:
            torch.lerp(gradient, momentum, beta, out=ahead)


class _Matrix(NamedTuple):
    """A parameter and its group."""

    parameter: nn.Parameter
    group: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows = self.parameter.shape[0]
        return rows, self.parameter.numel() // rows


def _chunks(matrices: Iterable[_Matrix]) -> Iterator[list[_Matrix]]:
    """Matrices with the same shorter side together, equal shapes in sequence, of at most
    `MOST_ELEMENTS`."""
    ordered = sorted(matrices, key=lambda one: (min(one.shape), one.shape))
    for _, members in groupby(ordered, key=lambda one: min(one.shape)):
        chunk: list[_Matrix] = []
        elements = 0
        for one in members:
            elements += one.parameter.numel()
            if chunk and elements > MOST_ELEMENTS:
                yield chunk
                chunk, elements = [], one.parameter.numel()
            chunk.append(one)
        yield chunk


def orthogonal_factors(stacks: Sequence[Tensor]) -> list[Tensor]:
    """The factor U V^T of every matrix U S V^T, approximately: each singular value becomes 1, but
    for `TOLERANCE`, if it is at least `REACH` of a bound of the largest, the 8-norm of all.

    `stacks` are [N, rows, columns], fp32, any number of rows and columns whose minimum is the same.
    A matrix of zeros stays zeros.
    """
    grams = torch.cat([x.mT @ x if _is_tall(x) else x @ x.mT for x in stacks])
    factors = torch.split(_inverse_roots(grams), [len(x) for x in stacks])
    return [x @ q if _is_tall(x) else q @ x for x, q in zip(stacks, factors, strict=True)]


def _is_tall(stack: Tensor) -> bool:
    return stack.shape[1] > stack.shape[2]


def _inverse_roots(grams: Tensor) -> Tensor:
    """About A^(-1/2) for Gram matrices A [N, M, M], which are overwritten."""
    trace = grams.diagonal(dim1=1, dim2=2).sum(1).clamp_(min=_LEAST)[:, None, None]
    a = grams.div_(trace)
    square = a @ a
    bound = torch.linalg.matrix_norm(square, keepdim=True).sqrt_().clamp_(min=_LEAST**0.25)
    a, square = a.div_(bound), square.div_(bound * bound)
    root = None
    for number, stage in enumerate(STAGES, start=1):
        if number > 1:
            square = a @ a
        factor = _polynomial(stage, a, square)
        root = factor if root is None else root @ factor
        if number < len(STAGES):
            a = factor @ (a @ factor)
    assert root is not None
    return root.div_((trace * bound).sqrt_())


def _polynomial(coefficients: Sequence[float], a: Tensor, square: Tensor) -> Tensor:
    """The polynomial of A with these coefficients, from the constant one on: three or five."""
    constant, first, second, *higher = coefficients
    if higher:
        third, fourth = higher
        value = torch.add(a, square, alpha=second / first)
        rest = torch.add(a, square, alpha=fourth / third)
        value = torch.baddbmm(value, square, rest, beta=first, alpha=third)
    else:
        value = torch.add(a * first, square, alpha=second)
    value.diagonal(dim1=1, dim2=2).add_(constant)
    return value
