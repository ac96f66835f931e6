import pytest

from ocrtrain.evaluation.benchmarks.base import Gold
from ocrtrain.evaluation.benchmarks.chartqapro import LONGEST_LIST, measure


@pytest.mark.parametrize(
    ("answer", "gold", "years", "expected"),
    [
        ("105", "100", ["NO"], 1.0),
        ("106", "100", ["NO"], 0.0),
        ("12", "12%", ["NO"], 1.0),  # unlike ChartQA: % is ignored
        ("2011", "2010", ["NO"], 1.0),
        ("2011", "2010", ["YES"], 0.0),
        ("2010.", "2010", ["YES"], 1.0),
        ("aple", "apple", ["NO"], 0.8),
        ("abcd", "abxx", ["NO"], 0.0),  # the package anls: 0 at exactly one half
        ("0.0", "0", ["NO"], 1.0),
        ("0.1", "0", ["NO"], 0.0),
        ("['apple', '5']", "[apple, 5]", ["NO"], 1.0),
        ("['apple']", "[apple, 5]", ["NO", "NO"], 0.5),
        ("apple", "[apple, 5]", ["NO"], 0.5),
        ("['2010', '2013']", "[2010, 2012]", ["YES"], 0.5),  # one flag counts for all
        ("['2010', '2013']", "[2010, 2012]", ["YES", "NO"], 1.0),
        ("1,000", "1000", ["NO"], 0.8),  # a text
        ("", "x", ["NO"], 0.0),
        ("[" * 20_000, "x", ["NO"], 0.0),
    ],
)
def test_hand_computed(answer: str, gold: str, years: list[str], expected: float) -> None:
    found = measure(answer, Gold((gold,), "Factoid", {"year": years}))
    assert found.values[0].value == pytest.approx(expected)
    assert found.values[0].groups == {"question type": ("Factoid",)}


def test_the_last_year_of_a_conversation_counts() -> None:
    facts = {"year": ["YES", "NO"]}
    assert measure("2011", Gold(("2010",), "Conversational", facts)).values[0].value == 1.0
    assert measure("2011", Gold(("2010",), "Factoid", facts)).values[0].value == 0.0


def test_an_answer_far_too_long_is_no_list() -> None:
    answer = str(["a"] * LONGEST_LIST)
    assert measure(answer, Gold(("[a]",), "Factoid", {"year": ["NO"]})).values[0].value == 0.0
