"""Turns the token ids of a row back into what a person can read: text, special tokens, images.

`visible` replaces characters that would not show (control characters, odd spaces, marks that change
the writing direction) by ones that do. No markup is added here: the terminal report, the page and
the contact sheet each add their own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile
from typing import NamedTuple

from ocrdata.tokens.rendering import IGNORE
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.data.batch import Batch
from ocrtrain.data.batch_rows import Segment
from ocrtrain.settings.image_slots import layout_slots

TEXT, SPECIAL, IMAGE = "text", "special", "image"

REPLACEMENT = "\ufffd"
LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8, hence the most tokens it can be split into."""

_SYMBOLS = {"\n": "\u21b5", "\t": "\u21e5", "\x7f": "\u2421"}
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
"""Unicode categories of characters that do not show, or that change how others show."""


class Span(NamedTuple):
    """Consecutive ids shown as one unit: one text token (several where a character is split over
    them), one special token, or all positions of an image.

    `text` is the token's text, the special token's name, or "image"; `start` is the position of the
    first id in its sample.
    """

    kind: str
    text: str
    ids: tuple[int, ...]
    start: int
    supervised: bool


class PositionSpan(NamedTuple):
    """Consecutive positions of one kind: "image", "supervised" or "context". `start` and `stop` are
    positions in the row."""

    kind: str
    start: int
    stop: int


def supervised_ids(batch: Batch, row: int) -> list[bool]:
    """Whether each id of a row is a training target, that is, whether the position before it
    contributes to the loss."""
    return [False, *(batch.targets[row, :-1] != IGNORE).tolist()]


def slots_of(batch: Batch, row: int, segment: Segment) -> Iterator[int]:
    """The positions that each image of a sample takes."""
    return (layout_slots(batch.layouts[image]) for image in batch.images_of(row, segment))


def spans(batch: Batch, row: int, segment: Segment, tokenizer: Tokenizer) -> Iterator[Span]:
    """Splits the ids of one sample, which is in row `row` of the batch, into spans, in order."""
    first, last = segment.start, segment.start + segment.length
    ids = batch.input_ids[row, first:last].tolist()
    supervised = supervised_ids(batch, row)[first:last]
    names = {number: name for name, number in tokenizer.specials.items()}
    slots, at = slots_of(batch, row, segment), 0
    while at < len(ids):
        if ids[at] == tokenizer.image:
            count, kind, text = next(slots), IMAGE, "image"
        elif ids[at] in names:
            count, kind, text = 1, SPECIAL, names[ids[at]]
        else:
            near = ids[at : at + LONGEST_CHARACTER]
            following = list(takewhile(lambda number: number not in names, near))
            count, text = _characters(following, tokenizer)
            kind = TEXT
        yield Span(kind, text, tuple(ids[at : at + count]), at, supervised[at])
        at += count


def _characters(ids: Sequence[int], tokenizer: Tokenizer) -> tuple[int, str]:
    """The fewest leading ids that decode to whole characters, and their text; just the first id if
    no number of them does."""
    for count in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:count])
        if REPLACEMENT not in text:
            return count, text
    return 1, tokenizer.decode(ids[:1])


def position_spans(
    batch: Batch, row: int, segment: Segment, tokenizer: Tokenizer
) -> Iterator[PositionSpan]:
    """Groups a sample's consecutive positions by kind; each image is a group of its own."""
    first, last = segment.start, segment.start + segment.length
    images = (batch.input_ids[row, first:last] == tokenizer.image).tolist()
    supervised = supervised_ids(batch, row)[first:last]
    slots, at = slots_of(batch, row, segment), first
    for (image, is_target), group in groupby(zip(images, supervised, strict=True)):
        stop = at + len(list(group))
        kind = IMAGE if image else "supervised" if is_target else "context"
        while at < stop:
            length = next(slots) if image else stop - at
            yield PositionSpan(kind, at, at + length)
            at += length


def first_turn(batch: Batch, row: int, segment: Segment, tokenizer: Tokenizer) -> tuple[str, str]:
    """The text before a sample's first supervised id, and its first supervised stretch. Images
    appear as '[image 273]'; special tokens are left out."""
    slots = slots_of(batch, row, segment)
    first, last = segment.start, segment.start + segment.length
    ids = batch.input_ids[row, first:last].tolist()
    supervised = supervised_ids(batch, row)[first:last]
    start = supervised.index(True) if True in supervised else len(ids)
    stop = supervised.index(False, start) if False in supervised[start:] else len(ids)
    return _text_of(ids[:start], tokenizer, slots), _text_of(ids[start:stop], tokenizer, slots)


def _text_of(ids: Sequence[int], tokenizer: Tokenizer, slots: Iterator[int]) -> str:
    specials = set(tokenizer.specials.values()) - {tokenizer.image}
    text = []
    for image, group in groupby(ids, key=lambda number: number == tokenizer.image):
        found = list(group)
        if image:
            left = len(found)
            while left:
                left -= (positions := next(slots))
                text.append(f"[image {positions}]")
        else:
            text.append(tokenizer.decode([number for number in found if number not in specials]))
    return "".join(text)


def visible(text: str) -> str:
    """Replaces every character that would not show: line ends and tabs by arrows, control
    characters by their symbols, others by their code points such as ⟨U+202E⟩."""
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character == " " or unicodedata.category(character) not in _INVISIBLE:
        return character
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    if character < " ":
        return chr(0x2400 + ord(character))  # the Unicode block of control pictures
    return f"\u27e8U+{ord(character):04X}\u27e9"
