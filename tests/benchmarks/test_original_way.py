"""The references that our training is compared with do what their descriptions say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.original_way import (
    Example,
    first_turn,
    full_loss,
    knapsacks,
    nanovlm_example,
    optimizer_of,
    original_example,
    pack_constant,
    pad_right,
    train_on,
)
from ocrdata.sample import from_turns
from ocrdata.tokens.rendering import IGNORE
from tests.support.small import CONFIG, coloured, tokenizer, untrained

SIZE = CONFIG.image_size
RED = coloured("red", images=2)
CHAT = from_turns([("1+1?", "2"), ("2+2?", "4")], [], source="sums", meta={})


def words(example: Example, mask: torch.Tensor) -> str:
    """The ids where `mask` holds, as text."""
    return tokenizer().decode(example.ids[mask].tolist())


def test_the_original_keeps_the_first_turn_and_image_and_trains_on_the_users_text() -> None:
    assert [part["type"] for part in first_turn(RED).messages[0]["content"]] == ["image", "text"]
    assert first_turn(CHAT) is CHAT
    example = original_example(RED, tokenizer(), SIZE)
    assert len(example.images) == 1 and example.images[0].shape == (3, SIZE, SIZE)
    assert example.tokens == len(example.ids)
    shown = words(example, example.predicted)
    # The letter after the image carries no loss; the user's others do.
    assert "hich colour?" in shown and "Which" not in shown and "red" in shown
    assert words(example, example.answers) == "red<|assistant_end|>"
    assert "Its first letter?" not in words(example, torch.ones_like(example.predicted))


def test_rows_are_padded_on_the_right_and_targets_are_shifted() -> None:
    examples = [original_example(sample, tokenizer(), SIZE) for sample in (RED, CHAT)]
    batch = pad_right(examples, tokenizer().bos)
    lengths = [len(example.ids) for example in examples]
    assert batch.ids.shape == (2, max(lengths)) and batch.tokens == sum(lengths)
    assert batch.positions == 2 * max(lengths) and batch.squares == 2 * max(lengths) ** 2
    for row, example in enumerate(examples):
        length = len(example.ids)
        assert torch.equal(batch.ids[row, :length], example.ids)
        assert (batch.targets[row, length - 1 :] == IGNORE).all()
        expected = torch.where(example.predicted[1:], example.ids[1:], IGNORE)
        assert torch.equal(batch.targets[row, : length - 1], expected)
    assert batch.answers == len("red") + 1 + 2 * 2
    assert batch.pixels is not None and batch.pixels.shape == (1, 3, SIZE, SIZE)


def test_nanovlm_packs_into_rows_of_one_length_padded_on_the_left() -> None:
    examples = [nanovlm_example(sample, tokenizer(), SIZE) for sample in (RED, CHAT, CHAT)]
    length = 1 + sum(len(example.ids) for example in examples)
    (batch,) = pack_constant(examples, length, tokenizer().bos, rows=4, spare=0)
    assert batch.ids.shape == (1, length)
    assert batch.ids[0, 0] == tokenizer().bos and batch.ids[0, 1] == examples[0].ids[0]
    assert batch.tokens == sum(len(example.ids) - 1 for example in examples)
    supervised = batch.targets != IGNORE
    assert supervised.sum() == batch.answers == sum(int(e.answers.sum()) for e in examples)
    spread = pack_constant(examples, length, tokenizer().bos, rows=1)
    assert [one.ids.shape for one in spread] == [(1, length)] * 3  # six rows for three samples
    assert sum(one.answers for one in spread) == batch.answers


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3)), min_size=1), st.integers(0, 5))
def test_a_knapsack_holds_every_sample_once_within_its_limits(
    samples: list[tuple[int, int]], spare: int
) -> None:
    sizes, images = zip(*samples, strict=True)
    groups = knapsacks(sizes, images, 50, spare=spare)
    assert sorted(number for group in groups for number in group) == list(range(len(samples)))
    assert all(sum(sizes[number] for number in group) <= 50 for group in groups)
    assert all(sum(images[number] for number in group) <= 18 for group in groups)


def test_the_fullest_row_that_is_balanced_and_a_sample_that_is_too_long() -> None:
    assert knapsacks([5, 4, 3, 2], [0] * 4, 7, spare=0) == [[0, 3], [1, 2]]
    with pytest.raises(ValueError, match="8 tokens"):
        knapsacks([8], [0], 7)


def test_the_loss_is_the_mean_over_targets_and_a_step_lowers_it() -> None:
    model = untrained()
    batch = pad_right([original_example(RED, tokenizer(), SIZE)], tokenizer().bos)
    loss = full_loss(model, batch)
    # One position after the other.
    hidden = model.hidden(
        model.embed(batch.ids, model.encoder(batch.pixels)), torch.arange(batch.ids.shape[1])[None]
    )
    logits = model.logits(hidden)[0].log_softmax(-1)
    losses = [-logits[at, target] for at, target in enumerate(batch.targets[0]) if target >= 0]
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    optimizer = optimizer_of(model)
    optimizer.param_groups[0]["lr"] = 1e-3
    assert train_on(model, optimizer, batch) == pytest.approx(loss.item(), rel=1e-5)
    assert full_loss(model, batch).item() < loss.item()
