"""Scores against oracles: the textbook edit distance, the reference's relaxed accuracy."""

from __future__ import annotations

import unicodedata
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


def forms(text: str) -> list[str]:
    return [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]


@given(st.text(alphabet="aé ñÅ가12", max_size=8), st.text(alphabet="aé ñÅ가12", max_size=8))
def test_composed_and_decomposed_letters_are_the_same(a: str, b: str) -> None:
    first, *others = [scores.score(x, y) for x in forms(a) for y in forms(b)]
    assert all(other == first for other in others)
    for function in (scores.relaxed_match, scores.exact_match, scores.edit_distance):
        assert len({function(x, y) for x in forms(a) for y in forms(b)}) == 1
    assert len({scores.word_overlap(x, y) for x in forms(a) for y in forms(b)}) == 1


@given(SHORT, st.lists(SHORT, min_size=1, max_size=4))
def test_anls_is_the_similarity_to_the_nearest_gold_answer_from_a_half_on(
    answer: str, golds: list[str]
) -> None:
    def similarity(gold: str) -> float:
        a, b = (" ".join(text.lower().split()) for text in (answer, gold))
        return 1 - plain_edit_distance(a, b) / max(len(a), len(b), 1)

    best = max(map(similarity, golds))
    assert scores.anls(answer, golds) == pytest.approx(best if best >= 0.5 else 0.0)


@pytest.mark.parametrize(
    ("answer", "golds", "expected"),
    [
        ("the Times", ["The  Times"], 1.0),
        ("3.4", ["34", "3.5"], 2 / 3),
        ("abcd", ["abxy"], 0.5),
        ("abc", ["axy"], 0.0),
        ("", ["Yes"], 0.0),
        ("", [""], 1.0),
    ],
)
def test_anls_of_examples(answer: str, golds: list[str], expected: float) -> None:
    assert scores.anls(answer, golds) == pytest.approx(expected)


@given(SHORT, st.lists(SHORT, min_size=1, max_size=4))
def test_of_several_gold_answers_the_best_counts(answer: str, golds: list[str]) -> None:
    found, alone = scores.score(answer, *golds), [scores.score(answer, gold) for gold in golds]
    assert found.relaxed == any(one.relaxed for one in alone)
    assert found.exact == any(one.exact for one in alone)
    assert found.anls == max(one.anls for one in alone)
    nearest = min(alone, key=lambda one: one.ned)
    for name in ("ned", "word_precision", "word_recall", "length", "gold_length"):
        assert getattr(found, name) == getattr(nearest, name)
    assert scores.score(answer, *golds, answer).exact


def test_without_a_gold_answer_there_is_no_score() -> None:
    for call in (lambda: scores.score("a"), lambda: scores.anls("a", [])):
        with pytest.raises(ValueError, match="gold"):
            call()


@pytest.mark.parametrize(
    ("answer", "golds", "relaxed", "other"),
    [
        ("2008", ["2010"], True, True),
        ("1910", ["2010"], True, True),
        ("1909", ["2010"], False, False),
        ("2010", ["2010"], True, False),
        (" 2010\n", ["2010"], True, False),
        ("2008", ["2010", "2008"], True, False),
        ("2008", ["2010", "2011"], True, True),
        ("2,008", ["2010"], True, False),
        ("2000", ["2010.5"], True, False),
        ("950", ["980"], True, False),
    ],
)
def test_relaxed_answers_that_are_another_year(
    answer: str, golds: list[str], relaxed: bool, other: bool
) -> None:
    found = scores.score(answer, *golds)
    assert (found.relaxed, found.other_year) == (relaxed, other)


def test_mean_scores_average_every_field() -> None:
    both = [scores.score("14", "14"), scores.score("No", "Yes")]
    means = scores.mean_scores(both)
    assert means["answers"] == 2
    assert means["exact"] == means["relaxed"] == 0.5
    assert means["length"] == 2.0
    assert means["ned"] == pytest.approx((0.0 + scores.edit_distance("No", "Yes")) / 2)
    with pytest.raises(ValueError, match="no answers"):
        scores.mean_scores([])
