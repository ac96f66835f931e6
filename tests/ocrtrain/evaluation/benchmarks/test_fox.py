import pytest

from ocrtrain.evaluation.benchmarks.base import Gold
from ocrtrain.evaluation.benchmarks.fox import measure


def scores(answer: str, gold: str) -> dict[str, float]:
    return {one.measure: one.value for one in measure(answer, Gold((gold,), "all", {})).values}


def test_hand_computed() -> None:
    """Words: {the, cat, sat} against {the, cat, lay, down}; 6 edits of 20 letters."""
    found = scores("the cat the sat", "the cat lay down")
    assert found["precision"] == pytest.approx(2 / 3) and found["recall"] == 2 / 4
    assert found["F1"] == pytest.approx(2 * (2 / 3) * 0.5 / (2 / 3 + 0.5))
    assert found["length"] == 15 / 16
    assert scores("abcd", "abxy")["NED"] == 0.5
    assert scores("A", "a") == {"NED": 1.0, "length": 1.0, "precision": 0, "recall": 0, "F1": 0}


def test_a_short_answer_is_precise_and_shown_to_be_short() -> None:
    found = scores("the", "the cat lay down")
    assert found["precision"] == 1.0 and found["length"] < 0.2 and found["NED"] > 0.8
    assert scores("", "the cat")["precision"] == 0.0


def test_words_of_chinese_pages_are_left_out_and_counted() -> None:
    found = measure("天气很好", Gold(("天气不好",), "all", {}))
    assert {one.measure for one in found.values} == {"NED", "length"}
    assert sum(found.left_out.values()) == 1 and found.values[0].value == 0.25
    assert found.values[0].groups["language"] == ("Chinese",)


def test_pages_are_grouped_by_their_tokens_and_compression() -> None:
    gold = Gold(("the cat",), "all", {}, tokens=1_234, slots=100)
    assert measure("the cat", gold).values[0].groups == {
        "language": ("English",),
        "text tokens": ("1,200 to 1,299",),
        "compression": ("12 to 13 text tokens an image position",),
    }
