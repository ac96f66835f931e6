"""Tokenizers agree with tiktoken and `tokenizers`; text never becomes a special token."""

from __future__ import annotations

import base64
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from ocrdata.errors import OcrError, RejectedRow, UsageError
from ocrdata.tokens.tokenizer import (
    LONGEST_SPACE,
    SPECIAL_TOKENS,
    Tokenizer,
    bytes_tokenizer,
    load_tokenizer,
    train_tokenizer,
)
from ocrdata.tokens.vocabulary import GPT2_PATTERN, NANOCHAT_PATTERN, Ranks

ROOT = Path(__file__).parents[3]
GPT2 = ROOT.parent / "shared" / "data" / "tokenizer" / "gpt2.tiktoken"
TEXTS = [
    "The share of adults who say so rose from 12% in 2009 to 64% in 2015.",
    "How many bars are blue? There are 3 blue bars, and 17 others.\n\n",
    "naïve café, 東京, 👩‍🚀; tabs\tand  spaces   end ",
] * 5
NINE = SPECIAL_TOKENS[:-1]

any_text = st.lists(
    st.one_of(
        st.sampled_from([*SPECIAL_TOKENS, "<image>", "<|", "|>", "  ", "\n", "2015", "'s"]),
        st.text(max_size=12),
    ),
    max_size=8,
).map("".join)


def test_the_built_in_tokenizer_is_the_bytes_and_the_special_tokens(tmp_path: Path) -> None:
    found = load_tokenizer("bytes")
    assert found.vocab_size == 256 + len(SPECIAL_TOKENS)
    assert found.specials == {name: 256 + n for n, name in enumerate(SPECIAL_TOKENS)}
    assert found.fingerprint == "626ef21af6ce3a2f", "counts and runs of other releases have it"
    found.save(tmp_path / "tokenizer.json")
    saved = load_tokenizer(tmp_path / "tokenizer.json")
    assert saved.fingerprint == found.fingerprint == bytes_tokenizer().fingerprint


@given(any_text)
def test_the_built_in_tokenizer_encodes_bytes(text: str) -> None:
    ids = load_tokenizer("bytes").encode(text)
    assert bytes(ids) == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def test_a_file_named_like_the_built_in_tokenizer(
    tmp_path: Path, trained: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained.save("saved.json")
    (tmp_path / "saved.json").rename("bytes")
    assert load_tokenizer("bytes").fingerprint == bytes_tokenizer().fingerprint
    assert load_tokenizer("./bytes").fingerprint == trained.fingerprint


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train_tokenizer(TEXTS, 320)


def hub_json(*, special: bool = True) -> dict[str, Any]:
    """A real tokenizer.json with the nine special tokens first, as on the hub."""
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=[*NINE],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(TEXTS, trainer)
    bpe.add_tokens([AddedToken("    ", special=False)])
    value: dict[str, Any] = json.loads(bpe.to_str())
    for token in value["added_tokens"]:
        token["special"] = token["special"] and special
    return value


@pytest.fixture(scope="module")
def from_hub(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("hub") / "tokenizer.json"
    path.write_text(json.dumps(hub_json()))
    return load_tokenizer(path)


@given(text=any_text)
@settings(max_examples=300, deadline=None)
def test_text_never_becomes_a_special_token(
    trained: Tokenizer, from_hub: Tokenizer, text: str
) -> None:
    for tokenizer in (trained, from_hub):
        ids = tokenizer.encode(text)
        assert not set(ids) & set(tokenizer.specials.values())
        assert tokenizer.decode(ids) == text


def test_image_token_has_the_largest_id(trained: Tokenizer, from_hub: Tokenizer) -> None:
    for tokenizer in (trained, from_hub):
        assert tokenizer.image == tokenizer.vocab_size - 1
        assert set(tokenizer.specials) == set(SPECIAL_TOKENS)
        named = (tokenizer.bos, tokenizer.user_start, tokenizer.user_end)
        assert tokenizer.decode(named) == "<|bos|><|user_start|><|user_end|>"
        named = (tokenizer.assistant_start, tokenizer.assistant_end, tokenizer.image)
        assert tokenizer.decode(named) == "<|assistant_start|><|assistant_end|><|image|>"


def test_special_tokens_of_a_hub_file_keep_their_ids(from_hub: Tokenizer) -> None:
    assert [from_hub.specials[name] for name in NINE] == list(range(9))
    oracle = tokenizers.Tokenizer.from_str(json.dumps(hub_json()))
    assert from_hub.image == oracle.get_vocab_size()
    for text in [*TEXTS, "a    b"]:
        assert from_hub.encode(text) == oracle.encode(text, add_special_tokens=False).ids


def test_unmarked_special_token_is_still_special(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(hub_json(special=False)))
    tokenizer = load_tokenizer(path)
    assert tokenizer.bos == 0
    assert 0 not in tokenizer.encode("a <|bos|> in text")


def bytes_only() -> dict[bytes, int]:
    return {bytes([byte]): byte for byte in range(256)}


def test_invalid_special_tokens() -> None:
    with pytest.raises(UsageError, match="id of a text token"):
        Tokenizer(Ranks(bytes_only(), NANOCHAT_PATTERN), {"<|bos|>": 255})
    with pytest.raises(UsageError, match="same id"):
        Tokenizer(Ranks(bytes_only(), NANOCHAT_PATTERN), {"<|bos|>": 300, "<|image|>": 300})
    for id_ in (1 << 24, 1 << 31, 1 << 70):
        with pytest.raises(UsageError, match=rf" {id_ + 9:,}, .*{1 << 24:,}"):
            Tokenizer(Ranks(bytes_only(), NANOCHAT_PATTERN), {"<|bos|>": id_})
    for odd in (300.5, "x", None, True):
        specials: Any = {"<|bos|>": odd}
        with pytest.raises(UsageError, match=r"special token .*integer"):
            Tokenizer(Ranks(bytes_only(), NANOCHAT_PATTERN), specials)


def test_too_large_rank_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x.tiktoken"
    ranks = bytes_only() | {b"ab": 1 << 33}
    path.write_bytes(b"".join(base64.b64encode(t) + b" %d\n" % rank for t, rank in ranks.items()))
    with pytest.raises(UsageError, match=r"x\.tiktoken: .* 8,589,934,592, .*16,777,216"):
        load_tokenizer(path)


def test_pattern_that_makes_its_engine_panic(tmp_path: Path) -> None:
    """Both engines then panic, with an object that is not an Exception."""
    text = "a" * 100 + "!"
    with pytest.raises(OcrError, match=r"split pattern.*: .+; use"):
        Ranks(bytes_only(), r"(?:a|aa)+(?=b)\b").encode(text)
    split = {"type": "Split", "pattern": {"Regex": "(a|aa)+$"}, "behavior": "Isolated",
             "invert": False}  # fmt: skip
    whole = hub_json()
    whole["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [split, {**whole["pre_tokenizer"], "type": "ByteLevel"}],
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(OcrError, match=r"split pattern.*: .+; use"):
        tokenizer.encode(text)


def test_existing_image_token_keeps_its_id() -> None:
    tokenizer = Tokenizer(Ranks(bytes_only(), NANOCHAT_PATTERN), {"<|image|>": 256})
    assert tokenizer.image == 256 and tokenizer.bos == 257 and tokenizer.vocab_size == 266


def test_rank_files_get_their_split_pattern(tmp_path: Path) -> None:
    """Whisper's own copy of GPT-2's ranks; the oracle is tiktoken with GPT-2's pattern."""
    if not GPT2.exists():
        pytest.skip(f"no real ranks at {GPT2}")
    tokenizer = load_tokenizer(GPT2)
    assert isinstance(tokenizer.backend, Ranks)
    assert tokenizer.backend.pattern == GPT2_PATTERN
    assert tokenizer.vocab_size == 50_256 + 10
    # "hello world" and "2015" are published ids of GPT-2.
    assert tokenizer.encode("hello world") == [31373, 995]
    assert tokenizer.encode(" 2015") == [1853]
    lines = [base64.b64encode(token).decode() + f" {rank}" for token, rank in bytes_only().items()]
    path = tmp_path / "bytes.tiktoken"
    path.write_text("\n".join([*lines, ""]))
    small = load_tokenizer(tmp_path)
    assert isinstance(small.backend, Ranks) and small.backend.pattern == NANOCHAT_PATTERN
    path.write_text("\n".join([*lines[:7], "no rank"]))
    with pytest.raises(UsageError, match=r"bytes\.tiktoken: line 8 .*no rank"):
        load_tokenizer(path)


def test_saved_tokenizer_is_loaded_unchanged(
    trained: Tokenizer, from_hub: Tokenizer, tmp_path: Path
) -> None:
    for number, tokenizer in enumerate((trained, from_hub)):
        path = tmp_path / f"{number}.json"
        tokenizer.save(path)
        again = load_tokenizer(path)
        assert again.fingerprint == tokenizer.fingerprint and again.specials == tokenizer.specials
        assert all(again.encode(text) == tokenizer.encode(text) for text in TEXTS)
        again.save(tmp_path / "again.json")
        assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
        through = pickle.loads(pickle.dumps(tokenizer))  # as spawn sends it
        assert through.encode(TEXTS[2]) == tokenizer.encode(TEXTS[2])


def test_modified_file_is_rejected(trained: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    trained.save(path)
    value = json.loads(path.read_text())
    for change, message in (
        ({"pattern": "."}, rf"digest is {trained.fingerprint}, .*train_tokenizer\.py"),
        ({"digest": "0"}, rf"digest is 0, .*{trained.fingerprint}"),
        (
            {"specials": {**value["specials"], "<|image|>": 9999}},
            rf"digest is {trained.fingerprint}, ",
        ),
        ({"version": 2}, r"version 2 is newer than 1\b"),
        ({"ranks": None}, "NoneType"),
        ({"kind": "words"}, "'definition'"),
    ):
        path.write_text(json.dumps(value | change))
        with pytest.raises(OcrError, match=rf"own\.json: .*{message}"):
            load_tokenizer(path)


def test_different_tokenizers_have_different_fingerprints(
    trained: Tokenizer, from_hub: Tokenizer
) -> None:
    assert isinstance(trained.backend, Ranks)
    ranks, specials = trained.backend.ranks, trained.specials
    others = [
        from_hub,
        Tokenizer(Ranks(ranks, GPT2_PATTERN), specials),
        Tokenizer(Ranks({t: r for t, r in ranks.items() if r < 300}, NANOCHAT_PATTERN), specials),
        Tokenizer(trained.backend, {**specials, "<|image|>": trained.image + 1}),
    ]
    assert len({trained.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert all(len(other.fingerprint) == 16 for other in others)


def test_training_is_deterministic(trained: Tokenizer) -> None:
    """In another process, with another number of threads and another hash seed."""
    program = (
        "import sys; from ocrdata.tokens.tokenizer import train_tokenizer; import json;"
        "print(train_tokenizer(json.load(sys.stdin), 320).fingerprint)"
    )
    for threads, seed in (("1", "1"), ("2", "2")):
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps(TEXTS),
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env=environment,
        )
        assert done.stdout.strip() == trained.fingerprint


def test_vocabulary_sizes() -> None:
    assert train_tokenizer(TEXTS, 300).vocab_size == 300
    assert train_tokenizer([], 266).vocab_size == 266
    assert train_tokenizer(["ab"], 1000).vocab_size == 267  # nothing more to merge
    with pytest.raises(UsageError, match=r"vocab_size is 265\b.* 266$"):
        train_tokenizer(TEXTS, 265)


def test_very_long_whitespace(trained: Tokenizer) -> None:
    for text in (" " * 1_200_000 + "a", "\t \n" * 400_000, "x" + "\n" * (2 * LONGEST_SPACE) + "y"):
        assert trained.decode(trained.encode(text)) == text


def test_lone_surrogates_are_rejected(trained: Tokenizer) -> None:
    for tokenizer in (trained, bytes_tokenizer()):
        with pytest.raises(RejectedRow, match="surrogate"):
            tokenizer.encode("a\ud800b")


def test_invalid_ids(trained: Tokenizer) -> None:
    for ids in ([-1], [trained.vocab_size]):
        with pytest.raises(ValueError, match=rf" 0 to 319; .* {ids[0]} to {ids[0]}$"):
            trained.decode(ids)
    gap = Tokenizer(Ranks(bytes_only(), NANOCHAT_PATTERN), {"<|image|>": 300})
    with pytest.raises(ValueError, match="299"):
        gap.decode([299])
    assert trained.decode([]) == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "not readable as JSON"),
        (b"[1]", "JSON.* `tokenizers`"),
        (b'{"format": "ocr-tokenizer", "version": "a"}', "version 'a'"),
        (b'{"model": {"type": "BPE"}, "added_tokens": [1]}', "added_tokens"),
        (b'{"model": [1]}', "model is None"),
        (b'{"model": "BPE"}', "model is None"),
        (b'{"model": {"type": "Unigram"}}', r"Unigram.*byte-level BPE"),
    ],
)
def test_files_that_are_not_tokenizers(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"tokenizer\.json: .*({message})"):
        load_tokenizer(path)


def test_missing_file_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"{tmp_path}: .*train_tokenizer\.py"):
        load_tokenizer(tmp_path)
    with pytest.raises(UsageError, match=r"absent\.json: No such file"):
        load_tokenizer(tmp_path / "absent.json")


def test_definition_that_makes_special_tokens_of_text(tmp_path: Path) -> None:
    """`ignore_merges` with a pre-tokenizer that does not split: an error, not silently wrong."""
    value = hub_json()
    value["model"]["ignore_merges"] = True
    value["pre_tokenizer"] = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False
    }  # fmt: skip
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(value))
    tokenizer = load_tokenizer(path)
    with pytest.raises(OcrError, match="special token"):
        tokenizer.encode("<|bos|>")
