"""Whether a tokenizer gives texts back: decode(encode(text)) == text.

A vocabulary without some letters drops them, and a normalizer, a split pattern or an added space
changes them, without a word; a model then learns to read `Zürich` as `rich`. Ordinary text is tried
once, when a tokenizer is loaded; whatever is left is found text by text, because texts are decoded
again after they are encoded (an eighth of the time of encoding; not done where it cannot differ).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import Protocol

BLOCKS = (
    range(0x20, 0x7F),  # ASCII
    range(0xA0, 0x180),  # Latin
    range(0x391, 0x3CA),  # Greek
    range(0x410, 0x450),  # Cyrillic
    range(0x5D0, 0x5EB),  # Hebrew
    range(0x621, 0x64B),  # Arabic
    range(0x905, 0x93A),  # Devanagari
    range(0x2010, 0x2060),  # spaces, dashes, quotation marks, invisible characters
    range(0x20A0, 0x20C0),  # currencies
    range(0x2100, 0x2150),  # letter-like symbols
    range(0x2150, 0x218A),  # fractions, Roman numerals
    range(0x2190, 0x2200),  # arrows
    range(0x2200, 0x2300),  # mathematics
    range(0x25A0, 0x2600),  # shapes
    range(0x3001, 0x3100),  # punctuation and kana of Japanese
    range(0x4E00, 0x4E80),  # Han
    range(0xAC00, 0xAC40),  # Hangul
    range(0xFF01, 0xFF5F),  # full-width Latin
    range(0xFB00, 0xFB05),  # ligatures
    range(0x1F600, 0x1F640),  # emoji
)
"""Letters that a page may hold, without what canonical composition (NFC) changes: a tokenizer that
composes is accepted, and a text that it changes is an error of its own."""

TEXTS = (
    " a",
    "a ",
    "  a  b",
    "\n",
    "\t",
    "a\r\nb\n\n",
    "a\n b",
    "A b .",
    "do n't , x",
    "\u0939\u093f\u0928\u094d\u0926\u0940",  # Hindi and Thai, with marks that do not compose
    "\u0e17\u0e35\u0e48\u0e19\u0e35\u0e48",
    "\U0001f469\u200d\U0001f680 \u2764\ufe0f",
)
"""Spaces where a tokenizer may trim or add some, and letters that need their neighbours."""


class Vocabulary(Protocol):
    """A vocabulary's two directions; see `ocrdata.tokens.vocabulary.Backend`."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""

    def decode(self, ids: list[int]) -> str:
        """The text of ids."""


def changed_texts(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """The ordinary letters and short texts that are not given back, each with what is."""
    return [
        (text, got)
        for text in _candidates(vocabulary)
        if (got := vocabulary.decode(vocabulary.encode(text))) != text
    ]


def _candidates(vocabulary: Vocabulary) -> Iterator[str]:
    """The letters of each block that is not given back as a whole, and short texts."""
    for block in BLOCKS:
        letters = [letter for letter in map(chr, block) if _is_stable(letter)]
        text = "".join(letters)
        if vocabulary.decode(vocabulary.encode(text)) != text:
            yield from letters
    yield from TEXTS


def _is_stable(letter: str) -> bool:
    return (
        unicodedata.category(letter) not in ("Cn", "Cs", "Mn", "Mc")
        and unicodedata.normalize("NFC", letter) == letter
    )


def lost_letters(missing: Iterable[int]) -> list[str]:
    """Letters that cannot be written without these bytes of UTF-8, one of each block."""
    lacking, found = frozenset(missing), []
    for block in BLOCKS:
        lost = [letter for letter in map(chr, block) if not lacking.isdisjoint(letter.encode())]
        if lost:
            found.append(next(filter(str.isalnum, lost), lost[0]))
    return found


def examples(changed: list[tuple[str, str]], most: int = 5) -> str:
    """The first changes in words, in ASCII: letters that look alike are told apart."""
    shown = [f"{text!a} becomes {got!a}" for text, got in changed[:most]]
    more = len(changed) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def first_change(text: str, got: str) -> str:
    """The first place where a text is not given back, in ASCII."""
    pairs = zip(text, got, strict=False)
    same = next(
        (n for n, (one, other) in enumerate(pairs) if one != other), min(len(text), len(got))
    )
    end = same + 8
    return f"{text[same:end]!a} at character {same:,} becomes {got[same:end]!a}"
