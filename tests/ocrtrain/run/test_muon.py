"""Muon against singular value decompositions, a plain update one by one, and torch's own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ocrtrain.run import muon
from ocrtrain.run.muon import MATCH_ADAMW, REACH, STAGES, TOLERANCE, Muon, orthogonal_factors

SHAPES = ((8, 8), (8, 20), (20, 8), (8, 2, 3, 3), (8, 4, 1, 1), (5, 8), (1, 6), (6, 1))


def exact(values: Tensor) -> Tensor:
    """What the stages make of singular values, the bound of the largest being 1."""
    for stage in STAGES:
        powers = 2 * torch.arange(len(stage)).double() + 1
        values = values[:, None] ** powers @ torch.tensor(stage, dtype=torch.float64)
    return values


def by_svd(matrix: Tensor) -> Tensor:
    """The orthogonal factor with the stages applied to the singular values, in float64."""
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    bound = (s**8).sum() ** (1 / 8)
    return (u * exact(s / bound) @ vh).to(matrix.dtype)


def random_matrices(shape: tuple[int, ...], number: int, decay: float) -> Tensor:
    """Matrices whose singular values fall by the factor `decay` over their number."""
    u, s, vh = torch.linalg.svd(torch.randn(number, *shape), full_matrices=False)
    return u * (s[:, :1] * decay ** torch.linspace(0, 1, s.shape[1]))[:, None] @ vh


def minimax(degree: int, low: float, high: float) -> tuple[list[float], float]:
    """The odd polynomial of `degree` with the least maximum error from 1 on [low, high], by Remez's
    exchange, and that error."""
    terms = (degree + 1) // 2
    powers = 2 * torch.arange(terms).double() + 1
    grid = torch.logspace(math.log10(low), math.log10(high), 20_001, dtype=torch.float64)
    signs = (-1.0) ** torch.arange(terms + 1).double()
    angles = torch.arange(terms + 1).double() * math.pi / terms
    points = low + (high - low) * (1 - torch.cos(angles)) / 2
    coefficients = error = torch.zeros(())
    for _ in range(30):
        system = torch.cat([points[:, None] ** powers, signs[:, None]], dim=1)
        solution = torch.linalg.solve(system, torch.ones(terms + 1, dtype=torch.float64))
        coefficients = solution[:-1]
        errors = 1 - (grid[:, None] ** powers) @ coefficients
        error = errors.abs().max()
        cuts = (errors.sign().diff() != 0).nonzero().flatten() + 1
        runs = torch.tensor_split(torch.arange(len(grid)), cuts)
        points = torch.stack([grid[run[errors[run].abs().argmax()]] for run in runs])
    return coefficients.tolist(), float(error)


def test_the_stages_are_the_best_polynomials_of_their_degrees() -> None:
    low, high = REACH, 1.0
    for stage in STAGES:
        best, error = minimax(2 * len(stage) - 1, low, high)
        assert stage == pytest.approx(best, rel=1e-4)
        low, high = 1 - error, 1 + error
    assert error == pytest.approx(TOLERANCE, abs=1e-3)
    values = exact(torch.logspace(math.log10(REACH), 0, 1000, dtype=torch.float64))
    assert (values - 1).abs().max() <= TOLERANCE
    assert math.prod(stage[0] for stage in STAGES) == pytest.approx(198, abs=1)


@settings(max_examples=20, deadline=None)
@given(
    side=st.integers(1, 40),
    others=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 3)), min_size=1, max_size=3),
    decay=st.sampled_from([1.0, 0.3, 0.03, 1e-4]),
    size=st.sampled_from([1e-12, 1e-4, 1.0, 1e6]),
    seed=st.integers(0, 2**16),
)
def test_singular_values_become_what_the_stages_say(
    side: int, others: list[tuple[int, int]], decay: float, size: float, seed: int
) -> None:
    torch.manual_seed(seed)
    stacks = []
    for more, number in others:
        stacks.append(size * random_matrices((side, side + more), number, decay))
        stacks.append(stacks[-1].mT.contiguous().roll(1, 0))
    for stack, found in zip(stacks, orthogonal_factors(stacks), strict=True):
        assert found.shape == stack.shape
        for one, matrix in zip(found, stack, strict=True):
            torch.testing.assert_close(one, by_svd(matrix), rtol=0, atol=2e-3)


def test_the_factor_is_that_of_the_decomposition_within_the_tolerance() -> None:
    torch.manual_seed(0)
    matrix = random_matrices((64, 96), 1, 0.02)
    u, _, vh = torch.linalg.svd(matrix[0], full_matrices=False)
    (found,) = orthogonal_factors([matrix])
    difference = torch.linalg.matrix_norm(found[0] - u @ vh, 2)
    assert 0.01 < difference <= TOLERANCE + 1e-3


def test_zeros_stay_zeros() -> None:
    stack = torch.zeros(2, 3, 5)
    stack[1] = torch.randn(3, 5)
    (found,) = orthogonal_factors([stack])
    assert torch.equal(found[0], torch.zeros(3, 5))
    torch.testing.assert_close(found[1], by_svd(stack[1]), rtol=0, atol=1e-4)


def made(seed: int = 0) -> list[torch.nn.Parameter]:
    torch.manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def vector() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(3))


def optimizer_of(
    parameters: list[torch.nn.Parameter], rest: torch.nn.Parameter, **values: Any
) -> Muon:
    group = {"params": parameters, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, **values}
    return Muon([group], torch.optim.AdamW([rest], lr=0.1, weight_decay=0.0, fused=True))


@pytest.mark.parametrize("decay", [0.0, 0.2])
@pytest.mark.parametrize("most", [1, 1 << 24])
def test_updates_are_those_of_a_plain_loop(
    decay: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, "MOST_ELEMENTS", most)  # 1: every matrix is a chunk of its own
    parameters, wanted = made(), [p.detach().clone() for p in made()]
    momenta = [torch.zeros_like(p) for p in wanted]
    optimizer = optimizer_of(parameters, vector(), weight_decay=decay)
    for step in range(4):
        for number, parameter in enumerate(parameters):
            # One matrix has no gradient at the first steps, as the encoder in a step of text.
            silent = number == 2 and step < 2
            parameter.grad = None if silent else torch.randn_like(parameter)
            if parameter.grad is None:
                continue
            momenta[number] = 0.9 * momenta[number] + 0.1 * parameter.grad
            ahead = 0.9 * momenta[number] + 0.1 * parameter.grad
            factor = by_svd(ahead.flatten(1))
            scale = 0.1 * MATCH_ADAMW * math.sqrt(max(factor.shape))
            wanted[number] *= 1 - 0.1 * decay
            wanted[number] -= scale * factor.view_as(parameter)
        optimizer.step()
    for parameter, want in zip(parameters, wanted, strict=True):
        torch.testing.assert_close(parameter.detach(), want, rtol=0, atol=1e-4)
    for parameter, momentum in zip(parameters, momenta, strict=True):
        torch.testing.assert_close(optimizer.state[parameter]["momentum"], momentum)


def test_updates_agree_with_torchs_muon() -> None:
    """In direction and size but for a few per cent: torch iterates in bf16, and less exactly."""
    ours, theirs = ([p for p in made() if p.ndim == 2 and min(p.shape) > 1] for _ in range(2))
    optimizer = optimizer_of(ours, vector(), momentum=0.95, weight_decay=0.1)
    other = torch.optim.Muon(
        theirs, lr=0.1, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    before = [p.detach().clone() for p in ours]
    for _ in range(3):
        for one, two in zip(ours, theirs, strict=True):
            one.grad = two.grad = torch.randn_like(one)
        optimizer.step()
        other.step()
    for one, two, start in zip(ours, theirs, before, strict=True):
        moved, other_moved = (one.detach() - start).flatten(), (two.detach() - start).flatten()
        assert torch.cosine_similarity(moved, other_moved, dim=0) >= 0.97, one.shape
        assert moved.norm() == pytest.approx(float(other_moved.norm()), rel=0.2), one.shape


def test_other_parameters_are_updated_by_adamw() -> None:
    rest, alone = vector(), vector()
    optimizer = optimizer_of(made(), rest)
    other = torch.optim.AdamW([alone], lr=0.1, weight_decay=0.0, fused=True)
    for _ in range(3):
        rest.grad = torch.tensor([1.0, -2.0, 0.5])
        alone.grad = rest.grad.clone()
        optimizer.step()
        other.step()
    assert torch.equal(rest, alone) and not torch.equal(rest, vector())
    assert sorted(optimizer.state[rest]) == ["exp_avg", "exp_avg_sq", "step"]
    optimizer.zero_grad()
    assert rest.grad is None


def test_a_rate_of_one_group_is_its_own() -> None:
    parameters, rest = made(), vector()
    groups = [
        {"params": [p], "lr": rate, "momentum": 0.0, "weight_decay": 0.0}
        for p, rate in zip(parameters[:2], (0.5, 0.0), strict=True)
    ]
    optimizer = Muon(groups, torch.optim.AdamW([rest], lr=0.0))
    before = [p.detach().clone() for p in parameters]
    for parameter in parameters[:2]:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    moved = before[0] - parameters[0].detach()
    assert float(moved.pow(2).mean().sqrt()) == pytest.approx(0.5 * MATCH_ADAMW, rel=0.1)
    assert torch.equal(parameters[1].detach(), before[1])
