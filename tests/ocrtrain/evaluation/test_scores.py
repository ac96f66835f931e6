"""Scores against oracles: the textbook edit distance, the reference's relaxed accuracy."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrtrain.evaluation import scores

SHORT = st.text(alphabet="ab é%.,0123456789-\n", max_size=12)


def plain_edit_distance(a: str, b: str) -> int:
    """The textbook table, row by row."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def reference_relaxed(answer: str, gold: str) -> bool:
    """The published rule in floats: percent is a hundredth, else a float, else text."""

    def number(text: str) -> float | None:
        try:
            return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
        except ValueError:
            return None

    given_value, expected = number(answer), number(gold)
    if given_value is not None and expected:
        return abs(given_value - expected) / abs(expected) <= 0.05
    return answer.lower() == gold.lower()


@given(SHORT, SHORT)
def test_edit_distance_is_the_textbook_one_divided_by_the_longer_length(a: str, b: str) -> None:
    longer = max(len(a), len(b))
    expected = plain_edit_distance(a, b) / longer if longer else 0.0
    assert scores.edit_distance(a, b) == pytest.approx(expected)
    assert scores.edit_distance(a, b) == scores.edit_distance(b, a)


@given(
    st.decimals(min_value=-10_000, max_value=10_000, places=2),
    st.decimals(min_value=-10_000, max_value=10_000, places=2),
    st.sampled_from(["", "%"]),
    st.sampled_from(["", "%"]),
)
def test_relaxed_numbers_agree_with_the_reference(a: object, b: object, x: str, y: str) -> None:
    answer, gold = f"{a}{x}", f"{b}{y}"
    expected, value = scores.parse_number(gold), scores.parse_number(answer)
    assert expected is not None
    assert value is not None
    edge = abs(value - expected) - abs(expected) / 20
    if expected != 0 and abs(edge) > Fraction(1, 10**9):  # on the edge floats are a matter of luck
        assert scores.relaxed_match(answer, gold) == reference_relaxed(answer, gold)


@given(st.text(alphabet="abY es", max_size=5), st.text(alphabet="abY es", max_size=5))
def test_relaxed_text_agrees_with_the_reference(a: str, b: str) -> None:
    assert scores.relaxed_match(a, b) == reference_relaxed(a.strip(), b.strip())


@pytest.mark.parametrize(
    ("answer", "gold", "correct"),
    [
        ("14", "14", True),
        ("14.", "14", True),
        ("1.47", "1.4", True),  # exactly 5 %: floats would say 0.05000000000000004
        ("1.33", "1.4", True),
        ("1.48", "1.4", False),
        ("-1.4", "1.4", False),
        ("12%", "12%", True),
        ("12 %", "12.5%", True),
        ("12", "12%", False),
        ("0.12", "12%", True),
        ("1,234", "1234", True),
        ("1200", "1,234.5", True),
        ("12,34", "1234", False),  # no grouping of thousands: text
        ("1e3", "1000", True),
        ("0.0", "0", True),
        ("0%", "0", True),
        ("0.001", "0", False),
        ("zero", "0", False),
        ("YES", "Yes", True),
        (" Yes\n", "yes", True),
        ("Yes.", "Yes", False),
        ("", "Yes", False),
        ("", "", True),
        ("nan", "nan", True),
        ("inf", "1e999", False),
        ("$5", "5", False),
        ("9" * 5000, "1", False),
        ("9" * 5000, "9" * 5000, True),
    ],
)
def test_relaxed_match_of_examples(answer: str, gold: str, correct: bool) -> None:
    assert scores.relaxed_match(answer, gold) is correct


@given(SHORT, SHORT)
def test_an_exact_answer_is_correct_by_every_score(a: str, b: str) -> None:
    same = scores.score(a, a)
    assert (same.exact, same.relaxed, same.ned) == (True, True, 0.0)
    assert same.word_precision == same.word_recall == 1.0
    assert scores.exact_match(a, b) == (a.strip() == b.strip())
    if scores.exact_match(a, b):
        assert scores.relaxed_match(a, b)


@given(
    st.lists(st.sampled_from("abcde"), max_size=6), st.lists(st.sampled_from("abcde"), max_size=6)
)
def test_word_overlap_compares_sets_of_words(answer: list[str], gold: list[str]) -> None:
    words = scores.word_overlap(" ".join(answer), "\n".join(gold))
    common = len([word for word in "abcde" if word in answer and word in gold])
    assert words.common == common
    assert words.precision == (common / len(set(answer)) if answer else float(not gold))
    assert words.recall == (common / len(set(gold)) if gold else float(not answer))


def test_a_short_answer_scores_high_on_precision_only() -> None:
    page = " ".join(f"word{n}" for n in range(500))
    short = scores.score("word1", page)
    assert short.word_precision == 1.0
    assert short.word_recall == pytest.approx(1 / 500)
    assert short.ned > 0.99
    assert (short.length, short.gold_length) == (5, len(page))


def test_the_edit_distance_of_long_texts() -> None:
    text = "the quick brown fox jumps over 1,234 lazy dogs " * 200
    assert len(text) > 9000
    assert scores.edit_distance(text, text[500:]) == pytest.approx(500 / len(text))


def test_mean_scores_average_every_field() -> None:
    both = [scores.score("14", "14"), scores.score("No", "Yes")]
    means = scores.mean_scores(both)
    assert means["answers"] == 2
    assert means["exact"] == means["relaxed"] == 0.5
    assert means["length"] == 2.0
    assert means["ned"] == pytest.approx((0.0 + scores.edit_distance("No", "Yes")) / 2)
    with pytest.raises(ValueError, match="no answers"):
        scores.mean_scores([])
