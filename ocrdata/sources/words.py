"""Which random words are for training and which are held out: one rule for every synthetic source.

A word goes to one side for good, by a keyed hash of its letters in lower case, whatever source,
seed, font or image it is drawn with: so what a model reads on held-out words stands nowhere in its
training data. Sources draw words until one is on the side of their flag `--words`. Words of one or
two characters are too few to be divided and belong to both sides; a held-out text has longer ones.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import string
from collections.abc import Callable, Sequence

from ocrdata.errors import UsageError

TRAIN, HELD_OUT = "train", "held-out"
SIDES = (TRAIN, HELD_OUT)

SHORTEST = 3
"""Characters of the shortest word that is on one side alone."""

HELD_OUT_OF = 8
"""One word of so many is held out. Changing it, or the key, moves words across and makes every
score on held-out words worthless that was trained on shards made before."""

_KEY = b"held-out words 1"

VOWELS, CONSONANTS = "aeiou", "bcdfghjklmnpqrstvwxyz"

_FEW = 4_096
"""Of so many strings and more, both sides have some: the chance of none is (7/8)^4096."""


def side_of(word: str) -> str | None:
    """TRAIN or HELD_OUT; None for a word of fewer than `SHORTEST` characters, which both have.

    Upper and lower case, and punctuation at either end, make no difference.
    """
    bare = word.strip(string.punctuation) or word
    if len(bare) < SHORTEST:
        return None
    digest = hashlib.blake2b(bare.casefold().encode(), digest_size=8, key=_KEY).digest()
    return TRAIN if int.from_bytes(digest, "little") % HELD_OUT_OF else HELD_OUT


def is_on(side: str, text: str) -> bool:
    """Whether a text may be drawn for a side: no word of it, between white space, is on the other
    one."""
    return all(side_of(word) in (None, side) for word in text.split())


def draw(make: Callable[[], str], side: str) -> str:
    """Calls `make` until its text may be drawn for `side`: 8/7 calls of a word for training and 8
    of a held-out one, on average."""
    while not is_on(side, text := make()):
        pass
    return text


def pronounceable(pick: random.Random, length: int) -> str:
    """A word of consonants and vowels in turns, in lower case: 'dopu', 'avix'."""
    kinds = (CONSONANTS, VOWELS) if pick.random() < 0.75 else (VOWELS, CONSONANTS)
    return "".join(pick.choice(kinds[place % 2]) for place in range(length))


def random_string(pick: random.Random, alphabet: Sequence[str], length: int) -> str:
    """`length` characters of the alphabet, each as likely as the others."""
    return "".join(pick.choices(alphabet, k=length))


def check_enough(alphabet: Sequence[str], lengths: Sequence[int], side: str) -> None:
    """Check that there are strings of each length for a side, so that `draw` ends.

    Raises UsageError: held-out strings shorter than `SHORTEST`, or too few characters.
    """
    if side == HELD_OUT and min(lengths) < SHORTEST:
        raise UsageError(
            f"--words {HELD_OUT} needs strings of at least {SHORTEST} characters, not "
            f"{min(lengths)}: shorter ones are in training data, too"
        )
    letters = sorted({letter.casefold() for letter in alphabet})
    for length in lengths:
        if len(letters) ** length >= _FEW:
            continue
        strings = map("".join, itertools.product(letters, repeat=length))
        if not any(is_on(side, text) for text in strings):
            raise UsageError(
                f"--words {side}: there is no such string of {length} characters of "
                f"{''.join(letters)!r}; add characters or length"
            )
