"""Plans over opened shards: lengths as in training, refusals that name the sample."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from ocrdata.errors import UsageError
from ocrdata.planning.blocks import BlockSize
from ocrdata.planning.plan import PlanSettings
from ocrdata.planning.views import lengths_of_view, plan_views, refuse_too_long, refuse_unfit
from ocrdata.reading.samples import tokenize_sample
from ocrdata.reading.view import open_shards
from ocrdata.sample import Sample, from_turns, text_part
from ocrdata.tokens.tokenizer import load_tokenizer
from tests.support.data import write_set

SLOTS = 5


@pytest.mark.parametrize("seq_len", [12, 30, 200])
@pytest.mark.parametrize("part", [slice(None), slice(50, 3, -2)])
def test_lengths_are_those_of_the_tokenized_samples(
    inputs: dict[str, str], seq_len: int, part: slice
) -> None:
    tokenizer = load_tokenizer(inputs["tokenizer"])
    view = open_shards(inputs["shards"])[part]
    found = lengths_of_view(view, tokenizer, slots=SLOTS, seq_len=seq_len)
    assert found.lengths.tolist() == [
        len(tokenize_sample(view[at], view.ref(at), tokenizer, slots=[SLOTS], seq_len=seq_len))
        for at in range(len(view))
    ]


def test_the_longest_sample_is_named(inputs: dict[str, str]) -> None:
    tokenizer, view = load_tokenizer(inputs["tokenizer"]), open_shards(inputs["shards"])
    lengths = lengths_of_view(view, tokenizer, slots=SLOTS, seq_len=30)
    longest = int(lengths.untruncated.argmax())
    with pytest.raises(UsageError) as caught:
        refuse_too_long("squares", view, lengths, 30)
    ref, tokens = view.ref(longest), int(lengths.untruncated[longest])
    for fact in ("squares", ref.shard, ref.key, f" {tokens} tokens", "30"):
        assert fact in str(caught.value)
    refuse_too_long("squares", view, lengths_of_view(view, tokenizer, slots=5, seq_len=500), 500)


def test_a_sample_that_is_no_conversation_is_named(inputs: dict[str, str], tmp_path: Path) -> None:
    tokenizer = load_tokenizer(inputs["tokenizer"])
    good = from_turns([("1 + 1 =", "2")], [], source="sums", meta={})
    bad = Sample([{"role": "user", "content": [text_part("1 + 1 =")]}])
    view = open_shards(write_set(tmp_path, "sums", [good, bad, good]))
    lengths = lengths_of_view(view, tokenizer, slots=SLOTS, seq_len=50)
    with pytest.raises(UsageError, match=r"sums: 1 samples.*sums-000.tar: sample 000000001"):
        refuse_unfit("sums", view, lengths, tokenizer)
    refuse_unfit("sums", view[::2], lengths_of_view(view[::2], tokenizer, slots=5, seq_len=50),
                 tokenizer)  # fmt: skip


def test_a_plan_knows_its_views_and_keeps_recorded_blocks(inputs: dict[str, str]) -> None:
    views = {"squares": open_shards(inputs["shards"]), "sums": open_shards(inputs["text"])}
    weights = {"squares": Fraction(2), "sums": Fraction(1)}
    settings = PlanSettings(batch=3, steps=10, seed=1, shuffle="blocks")
    kept = {"sums": BlockSize(2, 8)}
    plan = plan_views(views, weights, settings, recorded=kept)
    assert [(one.name, one.size, one.weight, one.digest) for one in plan.sources] == [
        (name, len(view), weights[name], view.digest) for name, view in views.items()
    ]
    blocks = plan.sources[1].blocks
    assert blocks is not None and blocks.recipe == kept["sums"]
    assert plan.digest != plan_views(views, weights, settings).digest
