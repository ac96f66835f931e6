"""Rows of samples as padded arrays, against a slow way to write them down."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.tokens.padding import TokenPair, pad_rows, with_targets
from ocrdata.tokens.rendering import IGNORE, TokenizedConversation

PAD = 7

samples = st.lists(st.tuples(st.integers(10, 99), st.booleans()), min_size=1, max_size=6)


def conversation(tokens: list[tuple[int, bool]]) -> TokenizedConversation:
    ids = np.array([number for number, _ in tokens], np.int32)
    mask = np.array([supervised for _, supervised in tokens], np.bool_)
    return TokenizedConversation(ids, mask, (), (), (len(tokens),))


@given(samples)
def test_a_target_is_the_next_id_where_that_is_supervised(tokens: list[tuple[int, bool]]) -> None:
    pair = with_targets(conversation(tokens))
    assert pair.ids.tolist() == [number for number, _ in tokens]
    wanted = [number if supervised else IGNORE for number, supervised in tokens[1:]]
    assert pair.targets.tolist() == [*wanted, IGNORE]


@settings(max_examples=40)
@given(st.lists(st.lists(samples, min_size=1, max_size=3), min_size=1, max_size=4))
def test_rows_are_their_samples_one_after_the_other(
    rows: list[list[list[tuple[int, bool]]]],
) -> None:
    pairs: list[list[TokenPair]] = [
        [with_targets(conversation(sample)) for sample in row] for row in rows
    ]
    padded = pad_rows(pairs, pad=PAD)
    longest = max(sum(map(len, row)) for row in rows)
    assert {array.shape for array in padded} == {(len(rows), longest)}
    assert {array.dtype for array in padded} == {np.dtype(np.int64)}
    for number, row in enumerate(pairs):
        length = sum(len(pair.ids) for pair in row)
        ids = [int(number) for pair in row for number in pair.ids]
        targets = [int(number) for pair in row for number in pair.targets]
        assert padded.input_ids[number].tolist() == ids + [PAD] * (longest - length)
        assert padded.targets[number].tolist() == targets + [IGNORE] * (longest - length)
        starts = [at for pair in row for at in range(len(pair.ids))]
        beyond = list(range(starts[-1] + 1, starts[-1] + 1 + longest - length))
        assert padded.position_ids[number].tolist() == starts + beyond
