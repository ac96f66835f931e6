"""Validation against a plain computation, sample by sample, and its warnings."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import ShardError, UsageError
from ocrdata.reading.samples import load_sample
from ocrdata.reading.view import Shards
from ocrdata.sample import from_turns
from ocrdata.tokens.rendering import IGNORE, render, truncate
from ocrtrain.evaluation.swapped import SWAP_EVERY, swap_partners
from ocrtrain.evaluation.validation import (
    BLIND_GAIN,
    Gain,
    LossTotal,
    Validation,
    ValidationOptions,
    answer_ranks,
    row_totals,
    validate,
)
from ocrtrain.model.ocr_model import OcrModel
from tests.support import small

SETTINGS = ValidationOptions(seq_len=128, batch=5)


def plain_losses(model: OcrModel, shards: Shards, position: int, images_of: int) -> list[float]:
    """Loss of each supervised token of one sample, alone in its row; only rendering and the forward
    pass are shared with the tested code."""
    item = load_sample(shards, position, source="", mode=small.MODE)
    other = load_sample(shards, images_of, source="", mode=small.MODE)
    slots = [model.slots] * len(item.images)
    rendered = truncate(render(item.sample.messages, small.tokenizer(), slots), 128)
    ids = torch.from_numpy(rendered.ids).long()[None]
    images = [torch.from_numpy(image) for image in other.images[: len(rendered.image_starts)]]
    with torch.no_grad():
        hidden = model.hidden(model.embed(ids, model.see(images)), torch.arange(ids.shape[1])[None])
        log_probs = model.logits(hidden[0]).log_softmax(dim=-1)
    return [
        -float(log_probs[at - 1, ids[0, at]])
        for at in range(1, ids.shape[1])
        if rendered.loss_mask[at]
    ]


def test_losses_are_sums_over_tokens_divided_by_their_number(tmp_path: Path) -> None:
    model = small.untrained()
    charts = small.squares(tmp_path, rows=7)
    chats = small.write(tmp_path / "sums-000.tar", [small.chat(n) for n in range(3)])
    found = validate(model, {"charts": charts, "sums": chats}, small.tokenizer(), SETTINGS)

    losses = {
        name: [loss for at in range(len(shards)) for loss in plain_losses(model, shards, at, at)]
        for name, shards in (("charts", charts), ("sums", chats))
    }
    everything = losses["charts"] + losses["sums"]
    numbers = found.numbers()
    assert found.samples == {"charts": 7, "sums": 3}
    assert found.total.tokens == len(everything)
    assert numbers["val/loss"] == pytest.approx(sum(everything) / len(everything), rel=1e-5)
    for name, values in losses.items():
        assert found.losses[name].tokens == len(values)
        assert numbers[f"val/{name}_loss"] == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_image_gain_is_the_loss_with_swapped_minus_matched_images(tmp_path: Path) -> None:
    model = small.trained(tmp_path).model()
    shards = small.squares(tmp_path)
    partners = swap_partners(shards, range(0, len(shards), SWAP_EVERY))
    assert sorted(partners) == sorted(partners.values()) == [0, 3, 6, 9]
    found = validate(model, {"squares": shards}, small.tokenizer(), SETTINGS)

    matched = [plain_losses(model, shards, at, at) for at in partners]
    swapped = [plain_losses(model, shards, at, other) for at, other in partners.items()]
    tokens = sum(map(len, matched))
    gain = (sum(map(sum, swapped)) - sum(map(sum, matched))) / tokens
    assert found.gain.samples == 4
    assert found.gain.matched.tokens == found.gain.swapped.tokens == tokens
    assert found.gain.gain == pytest.approx(gain, rel=1e-4)
    assert found.gain.head == pytest.approx(gain, rel=1e-4)  # all answers are shorter than 8


def test_a_model_that_reads_has_image_gain_and_a_blind_one_gets_a_warning(tmp_path: Path) -> None:
    shards = small.squares(tmp_path)
    reads = small.trained(tmp_path).model()
    found = validate(reads, {"squares": shards}, small.tokenizer(), SETTINGS)
    assert found.numbers()["val/image_gain"] > 0.5
    assert found.warnings(warn_if_blind=True) == []

    blind = small.trained(tmp_path).model()
    with torch.no_grad():  # the projector gives all images the same features
        blind.encoder.projector.weight.zero_()
    found = validate(blind, {"squares": shards}, small.tokenizer(), SETTINGS)
    assert found.numbers()["val/image_gain"] == pytest.approx(0.0, abs=1e-5)
    assert any(f"at least {BLIND_GAIN}" in text for text in found.warnings(warn_if_blind=True))
    assert not any(str(BLIND_GAIN) in text for text in found.warnings(warn_if_blind=False))


def test_a_collapsed_encoder_gets_a_warning(tmp_path: Path) -> None:
    model = small.untrained()
    with torch.no_grad():
        for parameter in model.encoder.sam.parameters():
            parameter.mul_(1e-4)
    found = validate(model, {"squares": small.squares(tmp_path)}, small.tokenizer(), SETTINGS)
    assert found.image_similarity is not None
    assert found.image_similarity > 0.999
    [warning] = found.warnings(warn_if_blind=False)
    assert "encoder" in warning and f"{found.image_similarity:.4f}" in warning


def test_the_head_is_the_first_eight_tokens_of_each_answer(tmp_path: Path) -> None:
    """Long answers about images, two a sample."""
    model = small.trained(tmp_path).model()
    samples = [
        from_turns(
            [("Which colour?", f"{name} is the colour of it"), ("And?", "no more to say here")],
            [small.png(small.COLOURS[name])], source="x", meta={},
        )
        for name in ("red", "red", "red", "blue")
    ]  # fmt: skip
    shards = small.write(tmp_path / "long-000.tar", samples)
    found = validate(model, {"long": shards}, small.tokenizer(), SETTINGS)
    assert swap_partners(shards, range(0, len(shards), SWAP_EVERY)) == {0: 3, 3: 0}

    lengths = [[len(small.tokenizer().encode(text)) + 1 for text in turns] for turns in (
        ("red is the colour of it", "no more to say here"),
        ("blue is the colour of it", "no more to say here"),
    )]  # fmt: skip

    def head(losses: list[float], turns: list[int]) -> list[float]:
        return losses[:8] + losses[turns[0] : turns[0] + 8]

    matched = [
        head(plain_losses(model, shards, at, at), n) for at, n in zip((0, 3), lengths, strict=True)
    ]
    swapped = [
        head(plain_losses(model, shards, at, 3 - at), n)
        for at, n in zip((0, 3), lengths, strict=True)
    ]
    assert found.gain.matched_head.tokens == 32
    expected = (sum(map(sum, swapped)) - sum(map(sum, matched))) / 32
    assert found.gain.head == pytest.approx(expected, rel=1e-4)
    assert found.gain.gain != pytest.approx(expected, rel=1e-2)


def test_text_and_a_single_image_have_no_image_gain(tmp_path: Path) -> None:
    model = small.untrained()
    chats = small.write(tmp_path / "sums-000.tar", [small.chat(n) for n in range(4)])
    found = validate(model, {"sums": chats}, small.tokenizer(), SETTINGS)
    assert set(found.numbers()) == {"val/loss", "val/sums_loss"}
    [warning] = found.warnings(warn_if_blind=True)
    assert "image gain is not measured" in warning
    assert found.warnings(warn_if_blind=False) == []

    one = small.write(tmp_path / "one-000.tar", [small.coloured("red")])
    found = validate(model, {"one": one}, small.tokenizer(), SETTINGS)
    assert set(found.numbers()) == {"val/loss", "val/one_loss"}


def test_a_sample_whose_image_was_truncated_does_not_enter_the_gain(tmp_path: Path) -> None:
    turns = [("Hello?", "Yes."), ("<image>Which?", "x" * 90)]
    picture = small.png((1, 2, 3))
    first = from_turns(turns, [picture], source="", meta={}, placeholder="<image>")
    samples = [small.coloured("red"), *[small.chat(1)] * 2, first, *[small.chat(1)] * 2]
    samples.append(small.coloured("blue"))
    shards = small.write(tmp_path / "cut-000.tar", samples)
    assert sorted(swap_partners(shards, range(0, len(shards), SWAP_EVERY))) == [0, 3, 6]
    found = validate(
        small.untrained(),
        {"cut": shards},
        small.tokenizer(),
        ValidationOptions(seq_len=64, batch=5),
    )
    assert found.gain.samples == 2
    assert found.gain.matched.tokens == found.gain.swapped.tokens


def test_batch_size_and_workers_do_not_change_the_numbers(tmp_path: Path) -> None:
    model = small.untrained()
    shards = small.squares(tmp_path, rows=8)

    def numbers(batch: int, workers: int) -> dict[str, float]:
        settings = ValidationOptions(seq_len=128, batch=batch, workers=workers)
        return validate(model, {"s": shards}, small.tokenizer(), settings).numbers()

    first = numbers(4, 0)
    assert numbers(4, 0) == first  # the same samples in the same order: not one bit differs
    assert numbers(4, 2) == first
    for batch in (1, 3, 50):
        assert numbers(batch, 0) == pytest.approx(first, abs=1e-4)


def test_model_and_random_states_are_left_unchanged(tmp_path: Path) -> None:
    model = small.untrained()
    model.train()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    validate(model, {"s": small.squares(tmp_path, rows=4)}, small.tokenizer(), SETTINGS)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state


def test_a_damaged_sample_is_an_error_and_leaves_the_model_in_train_mode(tmp_path: Path) -> None:
    shards = small.squares(tmp_path, rows=4)
    path = tmp_path / "squares-000.tar"
    data = bytearray(path.read_bytes())
    data[data.index(b"Which")] ^= 1
    path.write_bytes(data)
    model = small.untrained()
    model.train()
    with pytest.raises(ShardError, match="000000000"):
        validate(model, {"s": shards}, small.tokenizer(), SETTINGS)
    assert model.training


def test_an_empty_source_and_an_empty_batch_are_refused(tmp_path: Path) -> None:
    empty = small.squares(tmp_path, rows=4)[:0]
    with pytest.raises(UsageError, match="holds no samples"):
        validate(small.untrained(), {"s": empty}, small.tokenizer(), SETTINGS)
    with pytest.raises(UsageError, match="at least 1"):
        ValidationOptions(seq_len=64, batch=0)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=12), min_size=1, max_size=4))
def test_answer_ranks_restart_with_every_answer(rows: list[list[bool]]) -> None:
    width = max(map(len, rows))
    rows = [row + [False] * (width - len(row)) for row in rows]
    targets = torch.where(torch.tensor(rows), 5, IGNORE)
    found = answer_ranks(targets)
    for row, ranks in zip(rows, found.tolist(), strict=True):
        rank = 0
        for supervised, given_rank in zip(row, ranks, strict=True):
            if supervised:
                assert given_rank == rank
            rank = rank + 1 if supervised else 0


def test_row_totals_sum_the_losses_of_each_row() -> None:
    found = row_totals(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2]), 4)
    assert found == [LossTotal(1.0, 1), LossTotal(), LossTotal(6.0, 2), LossTotal()]


def test_undefined_numbers_are_absent_and_nan_is_not_hidden() -> None:
    undefined = Validation({"a": LossTotal()}, {"a": 1}, Gain(), None, None)
    assert undefined.numbers() == {}
    diverged = Validation({"a": LossTotal(math.nan, 3)}, {"a": 1}, Gain(), None, None)
    assert math.isnan(diverged.numbers()["val/loss"])
