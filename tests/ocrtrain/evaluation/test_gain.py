"""The gain of single answers, on the model that has memorised the squares."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocrdata.reading.samples import load_sample
from ocrtrain.evaluation.answers import turns_of, turns_with_history
from ocrtrain.evaluation.gain import GoldAnswer, answer_gains
from ocrtrain.evaluation.swapped import SWAP_EVERY, swap_partners
from ocrtrain.evaluation.validation import ValidationOptions, validate
from tests.support import small


def pairs(folder: Path, turns: object = turns_of) -> list[tuple[GoldAnswer, GoldAnswer]]:
    """Each question with its own colour and with the one three samples on."""
    shards = small.squares(folder)
    items = [
        load_sample(shards, at, source="squares", mode=small.MODE) for at in range(len(shards))
    ]
    found = []
    for at, item in enumerate(items):
        for turn in turns(item.sample):  # type: ignore[operator]
            own = GoldAnswer(item.ref, turn.messages, turn.golds[0], item.images)
            found.append((own, own._replace(images=items[(at + 3) % len(items)].images)))
    return found


def test_a_model_that_looks_gains_and_one_that_was_not_trained_does_not(tmp_path: Path) -> None:
    asked = pairs(tmp_path)
    gains = answer_gains(
        small.trained(tmp_path).model(), small.tokenizer(), asked, mode=small.MODE, precision=None
    )
    colours = [gain for gain, (own, _) in zip(gains, asked, strict=True) if len(own.gold) > 1]
    assert len(gains) == len(asked) and min(colours) > 0.5
    same = [(own, own) for own, _ in asked]
    none = answer_gains(small.untrained(), small.tokenizer(), same, mode=small.MODE, precision=None)
    assert none == pytest.approx([0.0] * len(same), abs=1e-5)


def test_gains_are_those_of_validation(tmp_path: Path) -> None:
    """One turn a sample, swapped by the same partners: the same losses, token for token."""
    shards = small.squares(tmp_path)
    model = small.trained(tmp_path).model()
    options = ValidationOptions(seq_len=128)
    expected = validate(model, {"squares": shards}, small.tokenizer(), options).gain
    partners = swap_partners(shards, range(0, len(shards), SWAP_EVERY))
    items = {at: load_sample(shards, at, source="", mode=small.MODE) for at in range(len(shards))}
    total, tokens = 0.0, 0
    for at, other in partners.items():
        for turn in turns_with_history(items[at].sample):
            own = GoldAnswer(items[at].ref, turn.messages, turn.golds[0], items[at].images)
            pair = (own, own._replace(images=items[other].images))
            [gain] = answer_gains(model, small.tokenizer(), [pair], mode=small.MODE, precision=None)
            length = len(small.tokenizer().encode(turn.golds[0])) + 1
            total, tokens = total + gain * length, tokens + length
    assert expected.gain == pytest.approx(total / tokens, abs=1e-4)
