"""Vocabularies, compared with tiktoken and `tokenizers` as oracles for their own forms."""

from __future__ import annotations

import json

import pytest
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from ocrdata.errors import UsageError
from ocrdata.tokens.vocabulary import (
    GPT2_PATTERN,
    NANOCHAT_PATTERN,
    Definition,
    Ranks,
    split_pattern,
    train_ranks,
)

TEXTS = ["The share rose from 12% in 2009 to 64% in 2015, naïve café!", "\tand  so  on\n\n"] * 9


def bytes_only() -> dict[bytes, int]:
    return {bytes([byte]): byte for byte in range(256)}


CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SINGLE = train_ranks(["What is AB12 AB12 AB12?"] * 9, 300, split_pattern("A-Z0-9"))


def test_invalid_ranks_are_refused() -> None:
    with pytest.raises(UsageError, match="same rank"):
        Ranks(bytes_only() | {b"ab": 7}, NANOCHAT_PATTERN)
    with pytest.raises(UsageError, match="pattern"):
        Ranks(bytes_only(), "(")


@pytest.fixture(scope="module")
def ranks() -> Ranks:
    return train_ranks(TEXTS, 290)


@pytest.fixture(scope="module")
def trained_by_tokenizers() -> tokenizers.Tokenizer:
    """The vocabulary that `tokenizers` trains on the same texts."""
    bpe = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(NANOCHAT_PATTERN), behavior="isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(TEXTS, trainer)
    return bpe


@given(text=st.text(max_size=40) | st.sampled_from(TEXTS))
@settings(max_examples=200, deadline=None)
def test_both_forms_agree(
    ranks: Ranks, trained_by_tokenizers: tokenizers.Tokenizer, text: str
) -> None:
    """Rust's and Oniguruma's regular expressions split alike, and ranks merge as merges do."""
    definition = Definition(json.loads(trained_by_tokenizers.to_str()))
    ids = ranks.encode(text)
    assert ids == definition.encode(text) == trained_by_tokenizers.encode(text).ids
    assert ranks.decode(ids) == definition.decode(ids) == text
    assert ranks.size == definition.size == 290


def test_ranks_encode_as_tiktoken(ranks: Ranks) -> None:
    oracle = tiktoken.Encoding(
        "x", pat_str=GPT2_PATTERN, mergeable_ranks=ranks.ranks, special_tokens={}
    )
    for text in TEXTS:
        assert Ranks(ranks.ranks, GPT2_PATTERN).encode(text) == oracle.encode_ordinary(text)


def test_tokens_have_at_most_two_digits() -> None:
    many = train_ranks(["2015 2016 2015 2015 123456"] * 50, 280)
    numbers = [token for token in many.ranks if token.strip().isdigit()]
    assert max(len(token.strip()) for token in numbers) == 2
    assert many.decode(many.encode("123456")) == "123456"


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"model": {"type": "Unigram"}}, r"Unigram.*byte-level BPE"),
        ({"model": {"type": "BPE"}}, "byte-level BPE"),
        ({"model": {"type": "BPE", "dropout": 0.1}, "decoder": "ByteLevel"}, "dropout"),
        ({"model": {"type": "BPE"}, "decoder": "ByteLevel"}, "`tokenizers`"),
    ],
)
def test_unusable_definitions_are_refused(definition: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Definition(definition)


@given(st.text(alphabet="AZm9 0a.'xÉ", max_size=30))
def test_single_characters_stand_alone_and_all_texts_come_back(text: str) -> None:
    ids = SINGLE.encode(text)
    encoded = [SINGLE.decode([token]) for token in ids]
    assert SINGLE.decode(ids) == text and SINGLE.complete
    assert all(len(piece) == 1 for piece in encoded if set(piece) & set(CAPITALS + "0123456789"))


def test_other_characters_are_merged_as_ever() -> None:
    assert [SINGLE.decode([t]) for t in SINGLE.encode("What is AB12 is")] == [
        "W", "hat", " is", " ", "A", "B", "1", "2", " is",
    ]  # fmt: skip


@pytest.mark.parametrize("single", ["Z-A", "]", "a b", "-", "A-", "\u00e9"])
def test_a_malformed_class_is_refused(single: str) -> None:
    with pytest.raises(UsageError, match=r"--single .*A-Z0-9"):
        split_pattern(single)
