"""Parameters are compared with the model, FLOPs with torch's counter and published figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ocrtrain.cost.flops import (
    ADAMW_FLOPS,
    MUON_FLOPS,
    decoder_flops,
    embedding,
    head_flops,
    image_flops,
    matrices,
    matrix_elements,
    optimizer_flops,
    orthogonalising_flops,
    parameters,
    step_flops,
)
from ocrtrain.model.encoder import DeepEncoder
from ocrtrain.model.ocr_model import OcrModel, part_of
from ocrtrain.run.muon import orthogonal_factors
from ocrtrain.run.optimizer import muon_matrices
from ocrtrain.settings.image_slots import image_slots
from ocrtrain.settings.model_config import PARTS, ModelConfig
from tests.support.encoders import REAL_HEADS, SMALL, pixels

FULL = ModelConfig()


@pytest.mark.parametrize("config", [FULL, SMALL, REAL_HEADS])
def test_parameter_counts_equal_the_model(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = OcrModel(config, image_size=1024, image_token=0)
    counted = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        counted[part_of(name)] += parameter.numel()
    assert parameters(config) == counted
    assert embedding(config) == model.gpt.model.embed_tokens.weight.numel()


def test_the_full_model_has_962_million_parameters() -> None:
    counts = parameters(FULL)
    assert counts["sam"] == 95_569_152
    assert counts["clip"] == 302_575_616
    assert counts["gpt"] == 2 * 65_537 * 1280 + 20 * 12 * 1280**2
    assert sum(counts.values()) == 961_760_768


def test_flops_of_an_image_of_1024_px_equal_the_published_ones() -> None:
    forward = image_flops(FULL, 1024)
    assert round(forward["sam"] / 1e9) == 977
    assert round(forward["clip"] / 1e9) == 162
    trained = {
        frozen: step_flops(FULL, images={1024: 1}, row_lengths=[], frozen=frozen)
        for frozen in ((), ("sam",))
    }
    assert round(trained[()] / 1e12, 2) == 3.42
    assert round(trained["sam",] / 1e12, 2) == 1.47


@pytest.mark.parametrize("config", [SMALL, REAL_HEADS])
@pytest.mark.parametrize("size", [128, 320])
def test_image_flops_equal_torchs_counter(config: ModelConfig, size: int) -> None:
    encoder = DeepEncoder(config).requires_grad_(False)
    # The counter sees the products inside the math kernel only.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encoder(pixels(size, count=3))
    assert counter.get_total_flops() == 3 * sum(image_flops(config, size).values())


def test_decoder_flops_equal_torchs_counter() -> None:
    model = OcrModel(SMALL, image_size=128, image_token=0).requires_grad_(False)
    length = 37
    embeds = torch.randn(1, length, SMALL.gpt_width)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.logits(model.hidden(embeds, torch.arange(length)[None]))
    # The kernel computes all pairs of positions; ours leaves out the masked ones.
    masked = length * length - length * (length + 1) // 2
    counted = counter.get_total_flops() - 4 * masked * SMALL.gpt_width * SMALL.gpt_layers
    assert counted == decoder_flops(SMALL, length, length**2) + head_flops(SMALL, length)


@pytest.mark.parametrize(
    "frozen", [(), ("sam",), ("gpt",), ("sam", "clip"), ("sam", "clip", "projector"), ("clip",)]
)
def test_training_flops_equal_torchs_counter(frozen: tuple[str, ...]) -> None:
    """Forward and backward pass of the whole model, with different parts frozen."""
    config = replace(SMALL, vocab_size=1000)
    model = OcrModel(config, image_size=128, image_token=0)
    model.freeze(frozen)
    ids = torch.zeros(1, image_slots(128), dtype=torch.long)
    length = ids.shape[1]
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        embeds = model.embed(ids, model.encoder(pixels(128, count=1)))
        logits = model.logits(model.hidden(embeds, torch.arange(length)[None]))
        logits.sum().backward()
    # The kernel computes all pairs of positions; ours leaves out the masked ones.
    masked = length * length - length * (length + 1) // 2
    extra = 4 * masked * config.gpt_width * config.gpt_layers * 3
    ours = step_flops(config, images={128: 1}, row_lengths=[length], frozen=frozen)
    assert counter.get_total_flops() == ours + extra


def test_flops_of_text_rows_and_of_the_head() -> None:
    def text(**options: object) -> float:
        return step_flops(FULL, images={}, row_lengths=[100, 50], **options)

    blocks = decoder_flops(FULL, 100, 100**2) + decoder_flops(FULL, 50, 50**2)
    assert text() == 3 * (blocks + head_flops(FULL, 150))
    assert text(supervised=7) == 3 * (blocks + head_flops(FULL, 7))
    # Without images nothing before the decoder needs a gradient.
    assert text(frozen=("gpt",)) == blocks + head_flops(FULL, 150)
    six_n = 6 * (parameters(FULL)["gpt"] - embedding(FULL))
    one = step_flops(FULL, images={}, row_lengths=[1])
    assert one == pytest.approx(six_n, rel=2e-4)


class Counted:
    """A number that counts the operations it takes part in."""

    operations = 0

    def __init__(self, value: float) -> None:
        self.value = value

    def _made(self, value: float) -> Counted:
        Counted.operations += 1
        return Counted(value)

    def __mul__(self, factor: float | Counted) -> Counted:
        return self._made(self.value * (factor.value if isinstance(factor, Counted) else factor))

    def __add__(self, other: float | Counted) -> Counted:
        return self._made(self.value + (other.value if isinstance(other, Counted) else other))

    def __sub__(self, other: Counted) -> Counted:
        return self._made(self.value - other.value)

    def __truediv__(self, other: float | Counted) -> Counted:
        return self._made(self.value / (other.value if isinstance(other, Counted) else other))

    def root(self) -> Counted:
        return self._made(self.value**0.5)


def test_the_optimizer_is_counted_as_the_algorithm_says() -> None:
    parameter = torch.nn.Parameter(torch.tensor([0.7], dtype=torch.float64))
    rate, decay, beta1, beta2, epsilon = 0.1, 0.2, 0.9, 0.99, 1e-8
    optimizer = torch.optim.AdamW(
        [parameter], lr=rate, betas=(beta1, beta2), eps=epsilon, weight_decay=decay
    )
    weight, first, second = Counted(0.7), Counted(0.0), Counted(0.0)
    for step, slope in enumerate((0.3, -0.5), start=1):
        parameter.grad = torch.full_like(parameter, slope)
        optimizer.step()
        Counted.operations, gradient = 0, Counted(slope)
        weight = weight * (1 - rate * decay)
        first = first * beta1 + gradient * (1 - beta1)
        second = second * beta2 + gradient * gradient * (1 - beta2)
        denominator = second.root() / (1 - beta2**step) ** 0.5 + epsilon
        weight = weight - first / denominator * (rate / (1 - beta1**step))
        assert Counted.operations == ADAMW_FLOPS
        assert weight.value == pytest.approx(parameter.item(), rel=1e-12)
    assert optimizer_flops(FULL, frozen=("sam",)) == ADAMW_FLOPS * (961_760_768 - 95_569_152)


@pytest.mark.parametrize("config", [FULL, SMALL, REAL_HEADS])
def test_the_matrices_of_muon_are_the_models(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = OcrModel(config, image_size=1024, image_token=0)
    found: dict[str, Counter[tuple[int, int]]] = {part: Counter() for part in PARTS}
    for name in muon_matrices(model):
        shape = model.get_parameter(name).flatten(1).shape
        found[part_of(name)][shape[0], shape[1]] += 1
    assert matrices(config) == found
    elements = sum(model.get_parameter(name).numel() for name in muon_matrices(model))
    assert matrix_elements(config) == elements


@pytest.mark.parametrize("config", [FULL, SMALL])
@pytest.mark.parametrize("frozen", [(), ("sam",)])
def test_flops_of_orthogonalising_equal_torchs_counter(
    config: ModelConfig, frozen: tuple[str, ...]
) -> None:
    with FlopCounterMode(display=False) as counter:
        for part, shapes in matrices(config).items():
            for shape, number in shapes.items() if part not in frozen else ():
                orthogonal_factors([torch.empty(number, *shape, device="meta")])
    products = orthogonalising_flops(config, frozen=frozen)
    assert products == counter.get_total_flops() > 0
    trained = sum(count for part, count in parameters(config).items() if part not in frozen)
    elements = matrix_elements(config, frozen=frozen)
    assert optimizer_flops(config, optimizer="muon", frozen=frozen) == (
        products + MUON_FLOPS * elements + ADAMW_FLOPS * (trained - elements)
    )
