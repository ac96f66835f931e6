"""The rows of a batch without its tensors, and their exchange between ranks."""

import json
from dataclasses import replace

import pytest

from ocrtrain.data.batch_rows import joined_summary
from tests.support.batches import batch


def test_the_joined_summary_of_all_ranks_is_that_of_the_global_batch() -> None:
    whole = batch(3, 1, 4)
    for rows in (1, 2, 3, 6):
        parts = [json.loads(json.dumps(p.summary.to_json())) for p in whole.split(rows)]
        assert joined_summary(parts) == whole.summary
        assert joined_summary(parts).identity == whole.identity


def test_the_sums_of_a_summary_are_those_of_its_batch() -> None:
    whole = batch(3, 1)
    for name in ("tokens", "supervised", "sources", "skipped", "refs", "image_count",
                 "truncated_tokens", "truncated_turns"):  # fmt: skip
        assert getattr(whole.summary, name) == getattr(whole, name), name
    assert whole.image_count == len(whole.images)


def test_parts_of_different_steps_are_an_error() -> None:
    one = batch(3).summary
    with pytest.raises(ValueError, match=r"\[3, 4\]"):
        joined_summary([one.to_json(), replace(one, step=4).to_json()])
