"""One rule divides the words of every synthetic source."""

import itertools
import random
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import UsageError
from ocrdata.sample import text_of
from ocrdata.sources.glyphs import GlyphOptions, GlyphsSource
from ocrdata.sources.lines import LinesOptions, LinesSource
from ocrdata.sources.open_charts import OpenChartOptions, OpenChartsSource
from ocrdata.sources.pages import PagesOptions, PagesSource
from ocrdata.sources.spans import Span
from ocrdata.sources.synthetic import SyntheticSource
from ocrdata.sources.tables import TablesSource
from ocrdata.sources.words import (
    HELD_OUT,
    HELD_OUT_OF,
    SHORTEST,
    SIDES,
    TRAIN,
    check_enough,
    draw,
    is_on,
    pronounceable,
    random_string,
    side_of,
)

ALPHABET = string.ascii_letters + string.digits
texts = st.lists(st.text(ALPHABET, min_size=1, max_size=6), min_size=1, max_size=5).map(" ".join)


@given(st.text(ALPHABET, min_size=SHORTEST, max_size=12))
def test_a_word_has_one_side_in_any_case_and_between_punctuation(word: str) -> None:
    side = side_of(word)
    assert side in SIDES
    variants = (word.upper(), word.lower(), f"({word}),", f"{word}.")
    assert {side_of(variant) for variant in variants} == {side}


@given(texts)
def test_a_text_may_be_on_a_side_where_none_of_its_words_is_on_the_other(text: str) -> None:
    sides = {side_of(word) for word in text.split()}
    assert is_on(TRAIN, text) == (HELD_OUT not in sides)
    assert is_on(HELD_OUT, text) == (TRAIN not in sides)


def test_the_sides_of_some_words_never_change() -> None:
    """Scores are worth something only as long as no word moves across."""
    held_out = [word for word in WORDS if side_of(word) == HELD_OUT]
    assert held_out == ["Beef", "Costs", "Demand", "Trade"], held_out


WORDS = (
    "Tea", "Rice", "Fish", "Milk", "Corn", "Eggs", "Oil", "Salt", "Nuts", "Beef", "Sales",
    "Exports", "Imports", "Profit", "Costs", "Output", "Demand", "Stock", "Waste", "Trade",
)  # fmt: skip


def drawn_words(side: str) -> dict[str, set[str]]:
    """What each source draws of a side, in lower case, words of two letters left out."""
    glyphs = GlyphOptions(words=side, characters=Span(3, 3), alphabets=("ABCDEFGH123",), images=8)
    lines = LinesOptions(words=side, characters=Span(3, 3))
    pages = PagesOptions(words=side, characters=Span(3, 3), height=120)
    charts = OpenChartOptions(words=side, images=4)
    sources: list[SyntheticSource] = [
        GlyphsSource(50, glyphs), LinesSource(50, lines), PagesSource(15, pages),
        OpenChartsSource(20, charts), TablesSource(50, words=side),
    ]  # fmt: skip
    found: dict[str, set[str]] = {}
    for source in sources:
        words = found[source.name] = set()
        for row in range(source.count()):
            sample = source.make(row)
            meta = sample.meta
            drawn = [chart["title"] for chart in meta.get("charts", ())]
            for items in (meta.get("items", ()), *(c["items"] for c in meta.get("charts", ()))):
                drawn += [item[0] for item in items]
            if not drawn:
                drawn = " ".join(map(text_of, sample.messages[1::2])).split()
            words.update(word.strip(".,:;").lower() for word in drawn)
        found[source.name] = {word for word in words if len(word) >= SHORTEST}
    return found


def test_no_held_out_word_of_any_source_is_drawn_by_any_for_training() -> None:
    train, held_out = drawn_words(TRAIN), drawn_words(HELD_OUT)
    assert train.keys() == held_out.keys() == {"glyphs", "lines", "pages", "open-charts", "tables"}
    for name in train:
        assert len(train[name]) > 50 and len(held_out[name]) > 20, name
        for other in held_out:
            assert not train[name] & held_out[other], (name, other)


def test_one_word_of_eight_is_held_out_and_short_ones_are_on_both_sides() -> None:
    strings = map("".join, itertools.product(string.ascii_lowercase, repeat=3))
    counts = Counter(map(side_of, strings))
    assert counts[None] == 0
    assert counts[HELD_OUT] / 26**3 == pytest.approx(1 / HELD_OUT_OF, abs=0.01)
    for word in ("a", "Zz", "(7)", "42."):
        assert side_of(word) is None
        assert is_on(TRAIN, word) and is_on(HELD_OUT, word)


@pytest.mark.parametrize("side", SIDES)
def test_drawn_words_are_on_their_side(side: str) -> None:
    pick = random.Random(side)
    words = {draw(lambda: pronounceable(pick, pick.randint(3, 8)), side) for _ in range(500)}
    strings = {draw(lambda: random_string(pick, ALPHABET, 4), side) for _ in range(500)}
    assert len(words) > 450 and len(strings) > 490
    assert {side_of(word) for word in words | strings} == {side}


def test_a_pronounceable_word_has_its_length_and_vowels_in_turns() -> None:
    pick = random.Random(0)
    letters: set[str] = set()
    for length in range(1, 12):
        word = pronounceable(pick, length)
        assert len(word) == length
        vowels = [letter in "aeiou" for letter in word]
        assert all(left != right for left, right in itertools.pairwise(vowels)), word
    for _ in range(400):
        letters.update(pronounceable(pick, 6))
    assert letters == set(string.ascii_lowercase)


def test_strings_that_do_not_exist_are_refused_before_they_are_looked_for() -> None:
    check_enough(ALPHABET, (1, 2, 3, 4), TRAIN)
    check_enough(ALPHABET, (3, 4), HELD_OUT)
    check_enough("ab", (20,), HELD_OUT)
    with pytest.raises(UsageError, match=r"held-out.*3 characters, not 2"):
        check_enough(ALPHABET, (2, 3), HELD_OUT)
    with pytest.raises(UsageError, match="3 characters of 'a'"):
        missing = TRAIN if side_of("aaa") == HELD_OUT else HELD_OUT
        check_enough("Aa", (3,), missing)
