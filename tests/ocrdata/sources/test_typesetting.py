import random
import string
from typing import Any

import numpy as np
import pytest

from ocrdata.errors import UsageError
from ocrdata.sources.faces import PAPER
from ocrdata.sources.fonts import BUILT_IN, FontFile, find_fonts
from ocrdata.sources.spans import Span
from ocrdata.sources.typesetting import ALPHABET, STRINGS, WORDS, TextOptions, stamp_lines
from ocrdata.sources.words import HELD_OUT, SIDES, TRAIN, side_of

AILERON = FontFile(BUILT_IN)


def options(**given: Any) -> TextOptions:
    return TextOptions(**{"width": 300, "height": 100, **given})


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("text", [WORDS, STRINGS])
def test_words_are_of_the_side_and_of_their_lengths(side: str, text: str) -> None:
    given = options(words=side, text=text, characters=Span(3, 6))
    pick = random.Random(0)
    words = [given.word(pick) for _ in range(400)]
    assert {side_of(word) for word in words} == {side}
    assert {len(word) for word in words} == {3, 4, 5, 6}
    assert set("".join(words)) <= set(given.visible)
    if text == WORDS:
        kinds = [
            sum(map(str.isdigit, words)), sum(map(str.isupper, words)),
            sum(map(str.istitle, words)), sum(map(str.islower, words)),
        ]  # fmt: skip
        assert all(10 < count < 350 for count in kinds) and sum(kinds) == len(words), kinds


def test_numbers_have_four_digits_at_most() -> None:
    pick, given = random.Random(0), options(characters=Span(3, 9))
    numbers = [word for word in (given.word(pick) for _ in range(500)) if word.isdigit()]
    assert {len(number) for number in numbers} == {3, 4}


def test_the_longest_word_must_fit_a_line() -> None:
    font = find_fonts(["Lato"])[0]
    given = options(characters=Span(3, 5), text=STRINGS)
    face = given.face(font, 20)
    longest = max(ALPHABET, key=face.advance) * 5
    needed = face.before + face.width(longest) + face.after
    given.check_width(font, 20, needed)
    with pytest.raises(UsageError, match=rf"--width 300: .* 5 characters of Lato .* {needed} px"):
        given.check_width(font, 20, needed - 1)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"width": 0}, "--width 0"),
        ({"height": 9_000}, "--height 9000"),
        ({"words": HELD_OUT, "characters": Span(2, 5)}, "held-out .* not 2"),
        ({"text": STRINGS, "alphabet": "aЖ"}, "no glyph"),
        ({"text": STRINGS, "alphabet": "a b"}, "visible"),
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        options(**wrong)


def test_the_alphabet_counts_for_strings_alone() -> None:
    assert options(alphabet="Ж").visible == ALPHABET + "."
    assert options(text=STRINGS, alphabet="xyz").visible == "xyz"
    assert "alphabet" not in options().provenance
    assert options(text=STRINGS, alphabet="xyz").provenance["alphabet"] == "xyz"


def test_lines_are_stamped_a_line_height_apart() -> None:
    given = options()
    face = given.face(AILERON, 16)
    canvas, one = given.canvas(), given.canvas()
    assert canvas.shape == (100, 300)
    stamp_lines(canvas, face, ["Dopu", "avix"], 10, 5)
    face.stamp(one, "avix", 10, 5 + face.line_height)
    assert (canvas[5 + face.line_height :] == one[5 + face.line_height :]).all()
    assert (canvas[: 5 + face.line_height] < PAPER).any() and TRAIN != HELD_OUT
    assert np.flatnonzero((canvas < PAPER).any(axis=1))[0] >= 5


def test_words_are_of_lower_case_letters_numbers_and_capitals() -> None:
    pick, given = random.Random(1), options()
    seen = {letter for _ in range(600) for letter in given.word(pick)}
    assert seen >= set(string.ascii_lowercase + string.digits)
