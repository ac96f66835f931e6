"""Ids turned back into text: no id is lost, and every character is visible."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.sample import from_turns
from ocrdata.tokens.rendering import IGNORE
from ocrtrain.inspection.token_spans import (
    first_turn,
    position_spans,
    spans,
    supervised_ids,
    visible,
)
from ocrtrain.settings.image_slots import image_slots
from tests.support.showing import rebuilt_of, talk
from tests.support.small import tokenizer

texts = st.text(max_size=12)
rows_of_talks = st.lists(
    st.lists(st.tuples(texts, texts, st.integers(0, 2)), min_size=1, max_size=3),
    min_size=1, max_size=3,
)  # fmt: skip


@given(rows_of_talks)
def test_spans_cover_all_ids_in_order(rows: list[list[tuple[str, str, int]]]) -> None:
    rebuilt = rebuilt_of([[talk(*one) for one in row] for row in rows])
    names = {number: name for name, number in tokenizer().specials.items()}
    for number, row in enumerate(rebuilt.batch.rows):
        for segment, (question, answer, images) in zip(row.segments, rows[number], strict=True):
            found = list(spans(rebuilt.batch, number, segment, tokenizer()))
            ids = [id_ for span in found for id_ in span.ids]
            first = segment.start
            wanted = rebuilt.batch.input_ids[number, first : first + segment.length].tolist()
            assert ids == wanted
            assert [span.start for span in found] == [
                sum(len(span.ids) for span in found[:at]) for at in range(len(found))
            ]
            assert [span.kind for span in found].count("image") == images
            for span in found:
                if span.kind == "image":
                    assert len(span.ids) == image_slots(64) and not span.supervised
                if span.kind == "special":
                    assert span.text == names[span.ids[0]]
            for supervised, text in ((False, question), (True, answer)):
                read = "".join(
                    span.text
                    for span in found
                    if span.kind == "text" and span.supervised == supervised
                )
                assert read == tokenizer().decode(tokenizer().encode(text))


@given(rows_of_talks)
def test_supervised_ids_are_the_targets(rows: list[list[tuple[str, str, int]]]) -> None:
    batch = rebuilt_of([[talk(*one) for one in row] for row in rows]).batch
    for row in range(len(rows)):
        flags = supervised_ids(batch, row)
        assert not flags[0] and sum(flags) == int((batch.targets[row] != IGNORE).sum())
        ids, targets = batch.input_ids[row].tolist(), batch.targets[row].tolist()
        assert [ids[at] for at, flag in enumerate(flags) if flag] == [
            target for target in targets if target != IGNORE
        ]


@given(rows_of_talks)
def test_position_spans_cover_a_row_and_tell_its_kinds(
    rows: list[list[tuple[str, str, int]]],
) -> None:
    rebuilt = rebuilt_of([[talk(*one) for one in row] for row in rows])
    for number, row in enumerate(rebuilt.batch.rows):
        flags = supervised_ids(rebuilt.batch, number)
        at = 0
        for segment in row.segments:
            kinds: list[str] = []
            for span in position_spans(rebuilt.batch, number, segment, tokenizer()):
                assert span.start == at < span.stop
                at = span.stop
                assert all(flag == (span.kind == "supervised") for flag in flags[span.start : at])
                kinds.append(span.kind)
                if span.kind == "image":
                    assert span.stop - span.start == image_slots(64)
            assert kinds.count("image") == segment.images
            assert all(a != b or a == "image" for a, b in itertools.pairwise(kinds))
        assert at == row.length


@given(st.text())
def test_every_character_is_visible_and_printable_ones_are_unchanged(text: str) -> None:
    for character in text:
        drawn = visible(character)
        assert all(
            one == " " or unicodedata.category(one) not in
            {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"} for one in drawn
        )  # fmt: skip
        if character.isprintable():
            assert drawn == character
    assert visible(text) == "".join(visible(character) for character in text)


@pytest.mark.parametrize(
    ("hidden", "seen"),
    [
        ("\n", "↵"), ("\t", "⇥"), ("\x00", "␀"), ("\x1b[31m", "␛[31m"), ("\x7f", "␡"),
        ("\u202e", "⟨U+202E⟩"), ("\u200b", "⟨U+200B⟩"), ("\xa0", "⟨U+00A0⟩"),
        ("\ud800", "⟨U+D800⟩"), ("\x85", "⟨U+0085⟩"), ("a b", "a b"), ("é中🙂", "é中🙂"),
    ],
)  # fmt: skip
def test_invisible_characters_are_replaced(hidden: str, seen: str) -> None:
    assert visible(hidden) == seen


def test_a_character_of_several_tokens_is_one_span() -> None:
    """Most tokens of this tokenizer are single bytes, so truncation can split a character."""
    rebuilt = rebuilt_of([[talk("中", "a🙂b\ufffd")]])
    (segment,) = rebuilt.batch.segments
    found = [s for s in spans(rebuilt.batch, 0, segment, tokenizer()) if s.kind == "text"]
    assert [(s.text, len(s.ids)) for s in found if s.text != "\ufffd"] == [
        ("中", 3), ("a", 1), ("🙂", 4), ("b", 1),
    ]  # fmt: skip
    truncated = rebuilt_of([[talk("q", "x" * 117 + "🙂" * 9)]])
    (segment,) = truncated.batch.segments
    assert segment.truncated_tokens
    assert list(spans(truncated.batch, 0, segment, tokenizer()))[-1].text == "\ufffd"


def test_the_first_turn_as_text() -> None:
    sample = from_turns([("one?", "two"), ("three?", "four")], [b""], source="", meta={})
    rebuilt = rebuilt_of([[talk("first", "one"), sample], ["skipped"]])
    first, second, masked = rebuilt.batch.segments
    assert first_turn(rebuilt.batch, 0, first, tokenizer()) == ("first", "one")
    assert first_turn(rebuilt.batch, 0, second, tokenizer()) == ("[image 3]one?", "two")
    assert first_turn(rebuilt.batch, 1, masked, tokenizer()) == ("", "")
