"""Our tokenizers and what `tokenizers` makes of them: the same ids for every text."""

from __future__ import annotations

import json
import random
from functools import cache
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import OcrError, UsageError
from ocrdata.tokens.fast_tokenizer import check_same, fast_tokenizer, hard_texts
from ocrdata.tokens.tokenizer import SPECIAL_TOKENS, Tokenizer, bytes_tokenizer, train_tokenizer
from ocrdata.tokens.vocabulary import GPT2_PATTERN, NANOCHAT_PATTERN, Definition, Ranks

CORPUS = [
    "The title of the chart is: Sales of apples, 2010-2019 (in % of 1,234.5).\n" * 3,
    "aaaa aa aaa ababab abab aba baab !!!! ---- ==== \t\t  \n\n   x",
    "Zürich naïve \u4e00\u4e8c\u4e09 \u0939\u093f\u0928\u094d\u0926\u0940 it's we'll I'VE",
]


def shuffled(ranks: Ranks) -> Tokenizer:
    """Merges in an order that no training gives, and tokens that no merge makes."""
    values = [*range(len(ranks.ranks) + 3)]
    random.Random(0).shuffle(values)
    tokens = [*ranks.ranks, b"zqzqzq", b"aaaaa", b"abababab"]
    return Tokenizer(Ranks(dict(zip(tokens, values, strict=True)), NANOCHAT_PATTERN))


def with_gaps(ranks: Ranks) -> Tokenizer:
    spread = {token: 2 * rank for token, rank in ranks.ranks.items()}
    return Tokenizer(Ranks(spread, NANOCHAT_PATTERN), {"<|bos|>": 1, "<|image|>": 5000})


def of_nanochat(ranks: Ranks) -> Tokenizer:
    """Nine specials after the ranks, and the image token after these."""
    after = {name: ranks.size + number for number, name in enumerate(SPECIAL_TOKENS[:9])}
    return Tokenizer(ranks, after)


def defined(ranks: Ranks) -> Tokenizer:
    """By the JSON of `tokenizers`."""
    found = Tokenizer(ranks)
    return Tokenizer(Definition(json.loads(fast_tokenizer(found).to_str())), found.specials)


MAKERS = {
    "bytes": lambda _: bytes_tokenizer(),
    "trained": Tokenizer,
    "nanochat": of_nanochat,
    "single": lambda _: train_tokenizer(CORPUS, 500, single="A-Za-z0-9"),
    "gpt2": lambda ranks: Tokenizer(Ranks(ranks.ranks, GPT2_PATTERN)),
    "shuffled": shuffled,
    "gaps": with_gaps,
    "definition": defined,
}


@cache
def made(name: str) -> Tokenizer:
    trained = train_tokenizer(CORPUS, 500).backend
    assert isinstance(trained, Ranks)
    return MAKERS[name](trained)


NAMES = tuple(MAKERS)


@cache
def fast(name: str) -> tokenizers.Tokenizer:
    """Written and read again, as a folder's."""
    return tokenizers.Tokenizer.from_str(fast_tokenizer(made(name)).to_str())


@pytest.mark.parametrize("name", NAMES)
def test_hard_texts_have_the_same_ids(name: str) -> None:
    texts = list(hard_texts(made(name)))
    assert len(texts) > 200
    check_same(made(name), fast(name), texts)
    for text in texts[::7]:
        ids = made(name).encode(text)
        assert fast(name).decode(ids, skip_special_tokens=False) == text


@given(st.text(st.sampled_from("ab 'sS1\n\t.-<|>é\u4e00\u0301\U0001f600") | st.characters(
    exclude_categories=["Cs"]), max_size=40))  # fmt: skip
def test_any_text_has_the_same_ids(text: str) -> None:
    for name in NAMES:
        check_same(made(name), fast(name), [text])


@given(st.lists(st.text("ab", min_size=1, max_size=12), min_size=1, max_size=5))
def test_repetitions_merge_alike_in_any_trained_vocabulary(texts: list[str]) -> None:
    tokenizer = train_tokenizer(texts, 290)
    check_same(tokenizer, fast_tokenizer(tokenizer), ["ab" * 9, "a" * 17, "aab" * 6, *texts])


@pytest.mark.parametrize("name", NAMES)
def test_special_tokens_have_their_ids(name: str) -> None:
    found = tokenizers.Tokenizer.from_str(fast_tokenizer(made(name)).to_str())
    for special, id_ in made(name).specials.items():
        assert found.token_to_id(special) == id_
        between = found.encode(f"a{special} b", add_special_tokens=False).ids
        assert between == [*made(name).encode("a"), id_, *made(name).encode(" b")]
        assert id_ not in made(name).encode(f"a{special} b")


def test_another_tokenizer_is_told_from_ours() -> None:
    with pytest.raises(OcrError, match=r"other ids: \["):
        check_same(made("trained"), fast("gpt2"), hard_texts(made("trained")))


def test_special_tokens_that_tokenizers_would_number_otherwise_are_refused() -> None:
    value: dict[str, Any] = json.loads(fast_tokenizer(bytes_tokenizer()).to_str())
    value["added_tokens"] = []
    tokenizer = Tokenizer(Definition(value), {"<|bos|>": 300})
    with pytest.raises(UsageError, match=r"<\|bos\|> the id 256, but it is 300"):
        fast_tokenizer(tokenizer)
