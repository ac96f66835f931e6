"""The head's loss and gradients equal those of torch's cross-entropy on all logits at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ocrtrain.model import head
from ocrtrain.model.head import soft_cap
from tests.support.models import close

WIDTH, VOCABULARY, CHUNK = 24, 97, 8


def plain(states: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    capped = 15 * torch.tanh(F.linear(states, weight).float() / 15)
    return F.cross_entropy(capped, targets, reduction="sum")


def summed_loss(states: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """The sum, after a look at the loss of each."""
    total, losses = head.summed_loss(states, targets, weight)
    assert losses.shape == targets.shape and not losses.requires_grad
    assert losses.sum().item() == pytest.approx(total.item(), rel=1e-5)
    return total


def tensors(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """States, targets and weight; logits reach well into the soft cap."""
    draw = torch.Generator().manual_seed(count)
    states = torch.randn(count, WIDTH, generator=draw)
    weight = torch.randn(VOCABULARY, WIDTH, generator=draw) * 2
    return states, torch.randint(VOCABULARY, (count,), generator=draw), weight


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def gradients(
    compute: Loss, count: int, *, trained: str = "states weight", bf16: bool = False
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Loss, and gradients of a multiple of it."""
    states, targets, weight = tensors(count)
    states.requires_grad_("states" in trained)
    weight.requires_grad_("weight" in trained)
    with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
        loss = compute(states, targets, weight)
    assert loss.dtype == torch.float32 and loss.shape == ()
    (loss * 0.7).backward()
    return loss.detach(), states.grad, weight.grad


@pytest.mark.parametrize("count", [1, CHUNK - 1, CHUNK, 3 * CHUNK + 1])
@pytest.mark.parametrize("trained", ["states weight", "states", "weight"])
def test_loss_and_gradients_equal_those_of_all_logits(
    count: int, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "HEAD_CHUNK", CHUNK)
    ours = gradients(summed_loss, count, trained=trained)
    wanted = gradients(plain, count, trained=trained)
    for one, other in zip(ours, wanted, strict=True):
        if other is None:
            assert one is None
        else:
            close(one, other, 1e-5)


def test_bf16_products_have_fp32_losses_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one chunk both take the same bf16 products; only sums differ."""
    for chunk, tolerance in ((100, 1e-2), (CHUNK, 2e-2)):
        monkeypatch.setattr(head, "HEAD_CHUNK", chunk)
        ours = gradients(summed_loss, 30, bf16=True)
        wanted = gradients(plain, 30, bf16=True)
        close(ours[0], wanted[0], 1e-5)  # the logits are the same bf16 numbers
        for one, other in zip(ours[1:], wanted[1:], strict=True):
            assert one is not None and other is not None and one.dtype == torch.float32
            close(one, other, tolerance)


def test_extreme_logits_are_finite() -> None:
    states = torch.tensor([[1e4], [-1e4], [1e-4]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.0]], requires_grad=True)
    targets = torch.tensor([0, 0, 2])
    ours, wanted = summed_loss(states, targets, weight), plain(states, targets, weight)
    close(ours.detach(), wanted.detach(), 1e-6)
    ours.backward()
    assert states.grad is not None and states.grad.isfinite().all()


def test_no_position_has_no_loss_and_zero_gradients() -> None:
    loss, states, weight = gradients(summed_loss, 0)
    assert loss.item() == 0.0
    assert states is not None and states.shape == (0, WIDTH)
    assert weight is not None and not weight.any()


def test_without_gradients_only_the_loss_is_computed() -> None:
    states, targets, weight = tensors(20)
    with FlopCounterMode(display=False) as counter:
        frozen = summed_loss(states, targets, weight)
        with torch.no_grad():
            evaluated = summed_loss(states.requires_grad_(), targets, weight.requires_grad_())
    assert not frozen.requires_grad and not evaluated.requires_grad
    close(evaluated, plain(states, targets, weight).detach(), 1e-6)
    assert counter.get_total_flops() == 2 * (2 * 20 * WIDTH * VOCABULARY)


def test_a_pass_takes_three_products_and_saves_no_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logits are not computed a second time."""
    monkeypatch.setattr(head, "HEAD_CHUNK", CHUNK)
    states, targets, weight = tensors(4 * CHUNK)
    saved = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        FlopCounterMode(display=False) as counter,
    ):
        summed_loss(states.requires_grad_(), targets, weight.requires_grad_()).backward()
    assert counter.get_total_flops() == 3 * 2 * 4 * CHUNK * WIDTH * VOCABULARY
    assert sum(saved) == states.numel() + weight.numel()  # their gradients


def test_a_second_backward_pass_is_an_error() -> None:
    states, targets, weight = tensors(3)
    loss = summed_loss(states.requires_grad_(), targets, weight)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


def test_soft_cap() -> None:
    logits = torch.tensor([-1e4, -15.0, 0.0, 1.0, 1e4])
    assert soft_cap(logits.bfloat16()).dtype == torch.float32
    close(soft_cap(logits), 15 * torch.tanh(logits / 15))


def test_the_loss_of_each_position_equals_that_of_all_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(head, "HEAD_CHUNK", CHUNK)
    states, targets, weight = tensors(2 * CHUNK + 3)
    capped = 15 * torch.tanh(F.linear(states, weight) / 15)
    wanted = F.cross_entropy(capped, targets, reduction="none")
    torch.testing.assert_close(head.summed_loss(states, targets, weight)[1], wanted)
