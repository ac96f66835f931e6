"""SAM's attention equals that of `transformers`, and does not keep its bias."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ocrtrain.model.encoder import import_vision_classes
from ocrtrain.model.sam_attention import SamAttention, SparedBias

SIDE = 8


def attention(grid: int = SIDE) -> nn.Module:
    classes = import_vision_classes()
    config = classes.sam_config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, mlp_dim=8,
        global_attn_indexes=[0], image_size=grid * 16, attn_implementation="sdpa",
    )  # fmt: skip
    found = classes.sam(config).layers[0].attn
    draw = torch.Generator().manual_seed(0)
    for parameter in found.parameters():
        nn.init.normal_(parameter, std=0.5, generator=draw)
    return found


def results(found: nn.Module) -> list[Tensor]:
    pixels = torch.randn(2, SIDE, SIDE, 32, generator=torch.Generator().manual_seed(1))
    output = found(pixels.requires_grad_())[0]
    output.square().sum().backward()
    return [output.detach(), pixels.grad, *(p.grad for p in found.parameters())]


@pytest.mark.parametrize("spare", [True, False])
@pytest.mark.parametrize("grid", [SIDE, 5])
def test_values_and_gradients_equal_those_of_transformers(grid: int, spare: bool) -> None:
    theirs = attention(grid)
    ours = SamAttention(copy.deepcopy(theirs))
    ours.spare = spare
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for one, other in zip(results(ours), results(theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


def test_a_saved_bias_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that saves its bias, as CUDA's does; the CPU's saves the weights instead."""
    original, made = F.scaled_dot_product_attention, []

    def saving(query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor) -> Tensor:
        # The product with ones saves the bias for the gradient of ones.
        ones = torch.ones((), requires_grad=True)
        return original(query, key, value, attn_mask=attn_mask * ones)

    again = SparedBias.again
    monkeypatch.setattr(SparedBias, "again", lambda one: made.append(1) or again(one))
    monkeypatch.setattr(F, "scaled_dot_product_attention", saving)
    found = attention()
    ours = SamAttention(copy.deepcopy(found))
    spared = results(ours)
    assert made == [1]
    monkeypatch.setattr(F, "scaled_dot_product_attention", original)
    for one, other in zip(spared, results(found), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)
