"""The decoder is compared with the oracle; the loss head; images in their slots."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ocrdata.errors import UsageError
from ocrdata.tokens.rendering import IGNORE
from ocrtrain.data.batch import Batch
from ocrtrain.model import head as module
from ocrtrain.model.ocr_model import OcrModel, build_model, part_of
from ocrtrain.model.row_cache import RowCache
from ocrtrain.settings.model_config import ModelConfig
from tests.support import oracle
from tests.support.encoders import SMALL
from tests.support.losses import inputs_of, loss_of, token_losses
from tests.support.models import IMAGE, REAL_GPT, close, make_batch, random_model
from tests.support.pretrained import to_nanochat


@pytest.mark.parametrize(("config", "length"), [(SMALL, 33), (REAL_GPT, 70)])
def test_decoder_equals_the_oracle(config: ModelConfig, length: int) -> None:
    model = random_model(config)
    embeds = torch.randn(2, length, config.gpt_width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = model.logits(model.hidden(embeds, torch.arange(length).repeat(2, 1)))
        for row in range(2):
            weights = to_nanochat(model.gpt)
            close(ours[row], oracle.gpt(weights, embeds[row], heads=config.gpt_heads))


def test_the_head_count_and_the_rotary_base_come_from_the_config() -> None:
    embeds = torch.randn(1, 20, SMALL.gpt_width, generator=torch.Generator().manual_seed(1))
    for heads, base in ((2, 1e4), (5, 1e4), (4, 1e5)):
        model = random_model(replace(SMALL, gpt_heads=heads, rope_theta=base))
        weights = to_nanochat(model.gpt)
        with torch.no_grad():
            ours = model.logits(model.hidden(embeds, torch.arange(20)[None]))[0]
            close(ours, oracle.gpt(weights, embeds[0], heads=heads, base=base))
            other = oracle.gpt(weights, embeds[0], heads=10, base=base)
            assert (ours - other).abs().max() > 0.1  # the effect of a wrong head count


def test_exact_sizes_of_the_full_decoder() -> None:
    with torch.device("meta"):
        model = OcrModel(ModelConfig(), image_size=1024, image_token=65_536)
    assert sum(p.numel() for p in model.gpt.parameters()) == 560_990_720
    assert sum(p.numel() for p in model.parameters()) == 961_760_768
    assert model.gpt.config.num_attention_heads == 10
    assert model.gpt.config.rope_parameters["rope_theta"] == 10_000
    assert model.gpt.lm_head.weight is not model.gpt.model.embed_tokens.weight
    assert model.slots == 273


def test_the_embedding_has_no_padding_token() -> None:
    """By default transformers gives token 1 a zero embedding that never gets a gradient."""
    model = build_model(SMALL, image_size=128, image_token=IMAGE, seed=0)
    table = model.gpt.model.embed_tokens
    assert table.padding_idx is None
    assert (table.weight.abs().sum(dim=1) > 0).all()
    model.embed(torch.arange(IMAGE)[None], None).square().sum().backward()
    assert (table.weight.grad[:IMAGE].abs().sum(dim=1) > 0).all()


def test_images_fill_their_slots_in_order() -> None:
    model = random_model()
    batch = make_batch([20, 9, 30], [2, 0, 1])
    images = model.pixels(batch.images)
    with torch.no_grad():
        features = model.encoder(images)
        embeds = model.embed(batch.input_ids, features)
    slots = model.slots
    assert torch.equal(embeds[0, : 2 * slots], features[:2].flatten(0, 1))
    assert torch.equal(embeds[2, :slots], features[2])
    text = batch.input_ids != IMAGE
    assert torch.equal(embeds[text], model.gpt.model.embed_tokens(batch.input_ids[text]))


@pytest.mark.parametrize(("drop", "extra"), [(1, 0), (0, 1), (3, 0)])
def test_a_wrong_number_of_images_is_an_error(drop: int, extra: int) -> None:
    model = random_model()
    batch = make_batch([20, 30], [2, 1])
    images = [*batch.images[drop:], *batch.images[:extra]]
    with pytest.raises(ValueError, match=rf"^{len(images)} images .*slots.* \[14, 7\]"):
        inputs_of(model, replace(batch, images=tuple(images), layouts=model.layouts(images)))
    with pytest.raises(ValueError, match=rf"^{7 * len(images)} features .* 21 image tokens"):
        model.embed(batch.input_ids, model.see(images))


def test_an_image_split_over_two_rows_is_an_error() -> None:
    model = random_model()
    ids = torch.tensor([[IMAGE] * 6, [IMAGE] + [5] * 5])
    image = torch.zeros(9, 9, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"^1 images .*7 slots.* \[6, 1\]"):
        model.prepare(ids, torch.arange(6).repeat(2, 1), ids, [image])


def plain_loss(model: OcrModel, batch: Batch) -> Tensor:
    """Loss with all logits in memory at once."""
    hidden = model.hidden(model.embed(batch.input_ids, model.see(batch.images)), batch.position_ids)
    logits = 15 * torch.tanh(model.gpt.lm_head(hidden).float() / 15)
    return F.cross_entropy(
        logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE, reduction="sum"
    )


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_chunked_loss_and_gradients_equal_the_plain_ones(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEAD_CHUNK", chunk)
    batch = make_batch([40, 25, 9], [1, 0, 1])
    results = []
    for compute in (lambda m: loss_of(m, batch).loss_sum, lambda m: plain_loss(m, batch)):
        model = random_model()
        (loss := compute(model) / batch.supervised).backward()
        results.append((loss.detach(), {n: p.grad for n, p in model.named_parameters()}))
    (ours, gradients), (wanted, plain) = results
    close(ours, wanted, 2e-6)
    for name, gradient in plain.items():
        assert gradients[name] is not None, name
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=2e-7)


def test_only_supervised_positions_count() -> None:
    model = random_model()
    batch = make_batch([40, 25], [1, 1])
    total, count, _ = loss_of(model, batch)
    assert count == batch.supervised > 0
    assert total.dtype == torch.float32
    losses, rows = token_losses(model, batch)
    close(losses.sum(), total.detach(), 1e-6)
    assert torch.equal(rows, (batch.targets != IGNORE).nonzero()[:, 0])
    # Ids after the last supervised position have no effect.
    last = int((batch.targets[0] != IGNORE).nonzero().max())
    changed = batch.input_ids.clone()
    changed[0, last + 1 :] = 3
    assert torch.equal(loss_of(model, replace(batch, input_ids=changed)).loss_sum, total)


def test_without_supervised_positions_the_loss_is_zero_and_has_gradients() -> None:
    model = random_model()
    batch = make_batch([12], [0])
    batch = replace(batch, targets=torch.full_like(batch.targets, IGNORE))
    total, count, _ = loss_of(model, batch)
    total.backward()
    assert (total.item(), count) == (0.0, 0)
    assert token_losses(model, batch).losses.numel() == 0


def test_text_does_not_run_the_encoder() -> None:
    model = random_model()
    loss_of(model, make_batch([30, 20], [0, 0])).loss_sum.backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert model.gpt.lm_head.weight.grad is not None


@pytest.mark.parametrize("frozen", [(), ("sam",)])
def test_checkpointed_blocks_give_the_same_gradients(frozen: tuple[str, ...]) -> None:
    batch = make_batch([40, 25], [1, 1])
    found = []
    for enabled in (False, True):
        model = random_model().train()
        model.freeze(frozen)
        model.checkpoint_blocks(enabled)
        with saved_count() as saved:
            total = loss_of(model, batch).loss_sum
        total.backward()
        found.append((saved[0], {n: p.grad for n, p in model.named_parameters()}))
    assert found[1][0] < 0.6 * found[0][0]
    for name, gradient in found[0][1].items():
        assert (gradient is None) == (part_of(name) in frozen)
        if gradient is not None:
            torch.testing.assert_close(found[1][1][name], gradient)


class saved_count:  # noqa: N801 - used like a function
    """Counts the elements saved for the backward pass."""

    def __enter__(self) -> list[int]:
        counted = [0]

        def pack(tensor: Tensor) -> Tensor:
            counted[0] += tensor.numel()
            return tensor

        self.hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        self.hooks.__enter__()
        return counted

    def __exit__(self, *exc: object) -> None:
        self.hooks.__exit__(None, None, None)


def test_bf16_autocast_has_fp32_loss_and_gradients() -> None:
    model = random_model().train()
    batch = make_batch([40, 25], [1, 1])
    with torch.autocast("cpu", torch.bfloat16):
        total = loss_of(model, batch).loss_sum
    total.backward()
    assert total.dtype == torch.float32
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
    close(total.detach(), plain_loss(model, batch).detach(), 0.03)


def test_generation_steps_equal_a_pass_over_the_whole_row() -> None:
    model = random_model(REAL_GPT).eval()
    embeds = torch.randn(2, 12, REAL_GPT.gpt_width)
    positions = torch.arange(12).repeat(2, 1)
    with torch.no_grad():
        whole = model.logits(model.hidden(embeds, positions))
    cache = RowCache([0, 0])
    for start, stop in ((0, 9), (9, 10), (10, 12)):
        logits = model.step(embeds[:, start:stop], cache, positions[:, start:stop])
        assert torch.isneginf(logits[:, IMAGE]).all()
        logits[:, IMAGE] = whole[:, stop - 1, IMAGE]
        close(logits, whole[:, stop - 1])
    with pytest.raises(RuntimeError, match=r"eval\(\)"):
        model.train().step(embeds, RowCache([0, 0]), positions)


def test_freezing_by_parts() -> None:
    model = random_model()
    model.freeze(["sam", "projector"])
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {part_of(n) for n in trained} == {"clip", "gpt"}
    assert not model.encoder.image_newline.requires_grad
    with pytest.raises(UsageError, match=r"'vision'.* sam, clip, projector, gpt"):
        model.freeze(["vision"])


def test_an_image_token_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(UsageError, match=r"300 .*300 tokens"):
        OcrModel(SMALL, image_size=128, image_token=300)
