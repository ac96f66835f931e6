"""Ids of a row as a person reads them: stretches of text, special tokens, images.

Owner of the way back from ids to what they stand for, and of making visible what nobody would see:
control characters, odd spaces, marks that turn the direction of writing. It marks nothing up; the
terminal (`ocrtrain.inspection.report`), the page (`ocrtrain.inspection.pages.batch`) and the sheet
(`ocrtrain.inspection.contact_sheet`) do.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile
from typing import NamedTuple

from ocrdata.tokens.rendering import IGNORE
from ocrdata.tokens.tokenizer import Tokenizer
from ocrtrain.data.batch import Batch, Segment
from ocrtrain.settings.image_slots import image_slots

TEXT, SPECIAL, IMAGE = "text", "special", "image"

REPLACEMENT = "\ufffd"
LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8: it lies in as many tokens at most."""

_NAMED = {"\n": "\u21b5", "\t": "\u21e5", "\x7f": "\u2421"}
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}
"""Unicode categories of what shows as nothing, or changes how its neighbours show."""


class Span(NamedTuple):
    """Neighbouring ids that are read as one: a token of text (or the few that share a character), a
    special token, or all positions of an image.

    `text` is the token's text, the special's name, or "image"; `start` is the position of the first
    id in its sample.
    """

    kind: str
    text: str
    ids: tuple[int, ...]
    start: int
    supervised: bool


class PositionSpan(NamedTuple):
    """Neighbouring positions of a row of one kind: "image", "supervised" or "context". `start` and
    `stop` count from the row's beginning."""

    kind: str
    start: int
    stop: int


def supervised_ids(batch: Batch, row: int) -> list[bool]:
    """For each id of a row whether it is predicted: whether the position before it carries loss."""
    return [False, *(batch.targets[row, :-1] != IGNORE).tolist()]


def spans(batch: Batch, row: int, segment: Segment, tokenizer: Tokenizer) -> Iterator[Span]:
    """The ids of one sample of row `row` of a batch, from its first to its last."""
    first, last = segment.start, segment.start + segment.length
    ids = batch.input_ids[row, first:last].tolist()
    wanted = supervised_ids(batch, row)[first:last]
    names = {number: name for name, number in tokenizer.specials.items()}
    slots, at = image_slots(batch.image_size), 0
    while at < len(ids):
        if ids[at] == tokenizer.image:
            count, kind, text = slots, IMAGE, "image"
        elif ids[at] in names:
            count, kind, text = 1, SPECIAL, names[ids[at]]
        else:
            near = ids[at : at + LONGEST_CHARACTER]
            following = list(takewhile(lambda number: number not in names, near))
            count, text = _characters(following, tokenizer)
            kind = TEXT
        yield Span(kind, text, tuple(ids[at : at + count]), at, wanted[at])
        at += count


def _characters(ids: Sequence[int], tokenizer: Tokenizer) -> tuple[int, str]:
    """How many of the ids it takes until all characters are whole, and their text; the first alone
    where they never are."""
    for count in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:count])
        if REPLACEMENT not in text:
            return count, text
    return 1, tokenizer.decode(ids[:1])


def position_spans(
    batch: Batch, row: int, segment: Segment, tokenizer: Tokenizer
) -> Iterator[PositionSpan]:
    """A sample's positions by what they are, neighbours of one kind together; each image alone."""
    first, last = segment.start, segment.start + segment.length
    images = (batch.input_ids[row, first:last] == tokenizer.image).tolist()
    wanted = supervised_ids(batch, row)[first:last]
    slots, at = image_slots(batch.image_size), first
    for (image, supervised), group in groupby(zip(images, wanted, strict=True)):
        length = len(list(group))
        kind = IMAGE if image else "supervised" if supervised else "context"
        for start in range(at, at + length, slots if image else length):
            yield PositionSpan(kind, start, start + (slots if image else length))
        at += length


def first_turn(batch: Batch, row: int, segment: Segment, tokenizer: Tokenizer) -> tuple[str, str]:
    """What a sample has before its first supervised id, and the supervised ids from there on, as
    text: images as '[image 273]', special tokens left out."""
    first, last = segment.start, segment.start + segment.length
    ids = batch.input_ids[row, first:last].tolist()
    wanted = supervised_ids(batch, row)[first:last]
    start = wanted.index(True) if True in wanted else len(ids)
    stop = wanted.index(False, start) if False in wanted[start:] else len(ids)
    slots = image_slots(batch.image_size)
    return _words(ids[:start], tokenizer, slots), _words(ids[start:stop], tokenizer, slots)


def _words(ids: Sequence[int], tokenizer: Tokenizer, slots: int) -> str:
    specials = set(tokenizer.specials.values()) - {tokenizer.image}
    text = []
    for image, group in groupby(ids, key=lambda number: number == tokenizer.image):
        found = list(group)
        if image:
            text.append(f"[image {slots}]" * (len(found) // slots))
        else:
            text.append(tokenizer.decode([number for number in found if number not in specials]))
    return "".join(text)


def visible(text: str) -> str:
    """A text in which every character shows: line ends as an arrow, tabs as one with a bar, other
    characters that would not be seen as their picture or their number."""
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character == " " or unicodedata.category(character) not in _UNSEEN:
        return character
    if character in _NAMED:
        return _NAMED[character]
    if character < " ":
        return chr(0x2400 + ord(character))  # Unicode's pictures of control characters
    return f"\u27e8U+{ord(character):04X}\u27e9"
