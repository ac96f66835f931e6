"""Tokenizers that lose or change letters are refused, or the texts that they change are."""

from __future__ import annotations

import json
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Trained
from tokenizers import decoders, models, pre_tokenizers, trainers

from ocrdata.errors import RejectedRow, UsageError
from ocrdata.planning.counting import count_members
from ocrdata.tokens.round_trip import BLOCKS, TEXTS, changed_texts, lost_letters
from ocrdata.tokens.tokenizer import SPECIAL_TOKENS, Tokenizer, load_tokenizer
from ocrdata.tokens.vocabulary import GPT2_PATTERN, NANOCHAT_PATTERN, Definition, Ranks
from tests.support.rows import sample

SPLIT = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def definition(*, whole: bool = True) -> dict[str, Any]:
    """A byte-level BPE of `tokenizers`, with all 256 letters or only those of its texts."""
    bpe = Trained(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet() if whole else []
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False, initial_alphabet=alphabet)
    bpe.train_from_iterator(["The share rose from 12 to 64 in all ten towns."] * 3, trainer)
    value: dict[str, Any] = json.loads(bpe.to_str())
    return value


def load(folder: Path, value: dict[str, Any]) -> Tokenizer:
    (folder / "tokenizer.json").write_text(json.dumps(value))
    return load_tokenizer(folder)


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"normalizer": {"type": "Sequence", "normalizers": []}},
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": True}, SPLIT)},
        {"pre_tokenizer": sequence({"type": "Punctuation", "behavior": "Isolated"}, SPLIT)},
    ],
)
def test_tokenizers_that_keep_ordinary_texts_are_accepted(
    change: dict[str, Any], tmp_path: Path
) -> None:
    tokenizer = load(tmp_path, definition() | change)
    text = "Z\u00fcrich, \u6771\u4eac: \u22123 \u00b0C (\u00bd) at 5 \u20ac \n"
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("change", "cause", "example"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "Lowercase", "'A' becomes 'a'"),
        ({"normalizer": {"type": "NFKC"}}, "NFKC", r"'\xa0' becomes ' '"),
        ({"normalizer": {"type": "NFD"}}, "NFD", r"'\xc0' becomes 'A\u0300'"),
        ({"normalizer": {"type": "StripAccents"}}, "StripAccents", r"becomes '\u0939"),
        ({"normalizer": {"type": "Prepend", "prepend": "_"}}, "Prepend", "' ' becomes '_ '"),
        ({"normalizer": {"type": "Nmt"}}, "Nmt", r"'\t' becomes ' '"),
        ({"pre_tokenizer": {**SPLIT, "add_prefix_space": True}}, "add_prefix_space",
         r"'\xa1' becomes ' \xa1'"),
        ({"pre_tokenizer": sequence({"type": "Whitespace"}, SPLIT)}, "Whitespace",
         "' ' becomes ''"),
        ({"pre_tokenizer": sequence({"type": "Punctuation", "behavior": "Removed"}, SPLIT)},
         "Punctuation", "'!' becomes ''"),
        ({"pre_tokenizer": sequence(SPLIT, SPLIT)}, "ByteLevel, ByteLevel",
         r"' ' becomes '\u0120'"),
        ({"pre_tokenizer": None}, "pre_tokenizer (none)", "' ' becomes ''"),
        ({"decoder": None}, "decoder (none)", r"' ' becomes '\u0120'"),
    ],
)  # fmt: skip
def test_tokenizers_that_change_ordinary_texts_are_refused(
    change: dict[str, Any], cause: str, example: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, definition() | change)
    message = str(caught.value)
    assert str(tmp_path / "tokenizer.json") in message and "tools/train_tokenizer.py" in message
    assert cause in message and example in message and "\n" not in message


def test_affixes_are_refused(tmp_path: Path) -> None:
    value = definition()
    value["model"]["end_of_word_suffix"] = "</w>"
    with pytest.raises(UsageError, match="end_of_word_suffix"):
        load(tmp_path, value)


def test_missing_bytes_are_refused(tmp_path: Path) -> None:
    value = definition(whole=False)
    letters = [letter for letter in value["model"]["vocab"] if len(letter) == 1]
    with pytest.raises(UsageError, match=rf"lacks {256 - len(letters)} of the 256.* \u00aa, "):
        load(tmp_path, value)
    ranks = {bytes([byte]): byte for byte in range(256) if byte != 0xE2}
    with pytest.raises(UsageError, match=r"lack 1 of the 256 .* \u2010, "):
        Ranks(ranks, NANOCHAT_PATTERN)


def test_bytes_of_no_letter_lose_none() -> None:
    assert lost_letters([0xC0, 0xFF]) == []
    assert lost_letters([ord("a")]) == ["a"]


def test_a_split_pattern_that_drops_letters_is_refused(tmp_path: Path) -> None:
    digits = Tokenizer(Ranks({bytes([byte]): byte for byte in range(256)}, r"\p{L}+|\s+"))
    with pytest.raises(RejectedRow, match="'2015' at character 3 becomes ''"):
        digits.encode("in 2015")
    digits.save(tmp_path / "own.json")
    with pytest.raises(UsageError, match=r"own\.json: .*'!' becomes ''.*split pattern"):
        load_tokenizer(tmp_path / "own.json")


@pytest.mark.parametrize("pattern", [NANOCHAT_PATTERN, GPT2_PATTERN])
def test_the_patterns_that_are_not_checked_match_every_character(pattern: str) -> None:
    ranks = Ranks({bytes([byte]): byte for byte in range(256)}, pattern)
    assert ranks.complete and changed_texts(ranks) == []
    codes = [*range(0xD800), *range(0xE000, 0x10000), *range(0x10000, 0x110000, 97)]
    text = " ".join(map(chr, codes))
    assert bytes(ranks.encode(text)) == text.encode()


def test_a_text_that_composition_changes_is_an_error_of_its_own(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, definition() | {"normalizer": {"type": "NFC"}})
    with pytest.raises(RejectedRow, match=r"'e\\u0301 bar' at character 3 becomes '\\xe9 bar'"):
        tokenizer.encode("Caf" + "e\u0301 bar")
    for question, turns in (("caf\u00e9", 1), ("cafe\u0301", 0)):
        one = sample(3)
        one.messages[0]["content"][-1]["text"] = question
        assert (
            len(count_members("x.tar", "3", {"3.json": one.to_json(), "3.png": b""}, tokenizer))
            == turns
        )


def test_an_added_token_that_swallows_spaces(tmp_path: Path) -> None:
    value = definition()
    value["added_tokens"].append(
        {"id": 300, "content": "<br>", "single_word": False, "lstrip": True, "rstrip": False,
         "normalized": False, "special": False}
    )  # fmt: skip
    tokenizer = load(tmp_path, value)
    assert tokenizer.decode(tokenizer.encode("a<br>b")) == "a<br>b"
    with pytest.raises(RejectedRow, match="' <br>b' at character 1 becomes '<br>b'"):
        tokenizer.encode("a <br>b")


def test_what_is_tried_is_stable_under_composition_and_found_letter_by_letter() -> None:
    for text in TEXTS:
        assert unicodedata.normalize("NFC", text) == text

    class Without:
        """A vocabulary of code points without some."""

        def __init__(self, missing: set[str]) -> None:
            self.missing = missing

        def encode(self, text: str) -> list[int]:
            return [ord(letter) for letter in text if letter not in self.missing]

        def decode(self, ids: list[int]) -> str:
            return "".join(map(chr, ids))

    assert changed_texts(Without(set())) == []
    for block in BLOCKS:
        letter = chr(block[1])
        assert (letter, "") in changed_texts(Without({letter}))


@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, " ", "\n", "e\u0301"]) | st.text(max_size=8)))
@settings(max_examples=100, deadline=None)
def test_a_text_is_given_back_or_refused(parts: list[str]) -> None:
    text = "".join(parts)
    tokenizer = composing()
    try:
        ids = tokenizer.encode(text)
    except RejectedRow:
        assert unicodedata.normalize("NFC", text) != text
    else:
        assert tokenizer.decode(ids) == text


@cache
def composing() -> Tokenizer:
    return Tokenizer(Definition(definition() | {"normalizer": {"type": "NFC"}}))
