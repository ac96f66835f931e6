"""A tokenizer of ours as one of `tokenizers`, for Hugging Face's libraries.

In: a `Tokenizer`. Out: a `tokenizers.Tokenizer` that gives the same ids for every text, with the
special tokens under their ids. The same is not taken for granted (two pattern engines, two
algorithms of merging): `check_same` compares them on hard texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import product

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from ocrdata.errors import OcrError, UsageError
from ocrdata.tokens.round_trip import BLOCKS, TEXTS
from ocrdata.tokens.tokenizer import Tokenizer
from ocrdata.tokens.vocabulary import Definition, Ranks, byte_letters


def fast_tokenizer(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """The same tokenizer for `tokenizers`; special tokens in a text are theirs only if
    `encode_special_tokens` is False, as it is at first.

    Raises UsageError where `tokenizers` gives a special token another id.
    """
    backend = tokenizer.backend
    if isinstance(backend, Ranks):
        found = _from_ranks(backend, tokenizer.specials)
    elif isinstance(backend, Definition):
        found = tokenizers.Tokenizer.from_str(json.dumps(backend.definition))
    else:
        raise TypeError(f"a {type(backend).__name__} is no vocabulary that can be converted")
    for name, id_ in tokenizer.specials.items():
        found.add_special_tokens([AddedToken(name, special=True, normalized=False)])
        if found.token_to_id(name) != id_:
            raise UsageError(
                f"`tokenizers` gives {name} the id {found.token_to_id(name)}, but it is {id_}: "
                "number the special tokens after the others, without a gap"
            )
    return found


def _from_ranks(ranks: Ranks, specials: Mapping[str, int]) -> tokenizers.Tokenizer:
    """Byte-level BPE with a merge for every two tokens that make a third, by the rank of the third.

    tiktoken takes a whole piece that is a token at once (`ignore_merges`), else merges the two
    neighbours whose joint bytes have the lowest rank, whatever they are.
    """
    letters = {byte: letter for letter, byte in byte_letters().items()}
    names = {token: "".join(letters[byte] for byte in token) for token in ranks.ranks}
    vocabulary = {names[token]: rank for token, rank in ranks.ranks.items()}
    after = range(len(vocabulary), len(vocabulary) + len(specials))
    if [*specials.values()] != [*after] or ranks.size != len(vocabulary):
        vocabulary |= specials  # with gaps, `tokenizers` would number them otherwise
    merges = [
        (names[left], names[right])
        for token in ranks.ranks
        for left, right in sorted(
            _halves(token, ranks.ranks), key=lambda pair: [ranks.ranks[half] for half in pair]
        )
    ]
    found = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(ranks.pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    found.decoder = decoders.ByteLevel()
    return found


def _halves(token: bytes, ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """The pairs of tokens that make a token."""
    for at in range(1, len(token)):
        if token[:at] in ranks and token[at:] in ranks:
            yield token[:at], token[at:]


def check_same(tokenizer: Tokenizer, fast: tokenizers.Tokenizer, texts: Iterable[str]) -> None:
    """Check that both give these texts the same ids. Raises OcrError for the first that differs."""
    fast.encode_special_tokens = True  # in a text, they are text
    for text in texts:
        ours, theirs = tokenizer.encode(text), fast.encode(text, add_special_tokens=False).ids
        if ours != theirs:
            at = next(
                (
                    n
                    for n, (one, other) in enumerate(zip(ours, theirs, strict=False))
                    if one != other
                ),
                min(len(ours), len(theirs)),
            )
            raise OcrError(
                f"`tokenizers` gives the text {text[:60]!a} other ids: {theirs[at : at + 3]} in "
                f"place of {ours[at : at + 3]} at {at}"
            )


def hard_texts(tokenizer: Tokenizer) -> Iterator[str]:
    """Texts in which two tokenizers may differ: letters of many scripts, alone and beside spaces,
    digits and marks; contractions; long and mixed runs; names of special tokens; repetitions, which
    merge in several ways; and up to 2,000 of the vocabulary's own tokens."""
    yield from TEXTS
    for id_ in range(0, tokenizer.vocab_size, max(1, tokenizer.vocab_size // 2_000)):
        with suppress(ValueError):  # an id without a token
            yield tokenizer.decode([id_])
    for block in BLOCKS:
        letters = [chr(code) for code in block]
        yield "".join(letters)
        yield " ".join(letters)
        yield "".join(
            f"{one}1 {one}\n{one}'{one}a" for one in letters[:: max(1, len(letters) // 16)]
        )
    for name in tokenizer.specials:
        yield f"a{name}b {name} {name[:-1]}"
    for mark, ending in product("'\u2019", ("s", "S", "t", "ll", "LL", "ve", "rE", "d", "\u017f")):
        yield f"it{mark}{ending} {mark}{ending}{ending}"
    for length in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33):
        for letter in ("a", "ab", "1", " ", "\n", "\t", "-", ".\n", " \n", "\u00e9", "\u00a0"):
            yield f"x{letter * length}y{letter * length}"
    yield "\x00\x01\x1c\x1f\x7f\x85\u2028\u2029\u200b\ufeff\ufffd\ufffe\U0010ffff\ue000"
    yield "def f(x):\n\treturn x**2  # 3.14159e-10\r\n\r\n   \n"
    yield "\u0130\u0131\u1e9e\u00df\ufb01 e\u0301\u0323 \U0001f1e9\U0001f1ea"
    yield "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f"
