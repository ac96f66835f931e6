import pytest

from ocrtrain.evaluation.benchmarks.base import Gold
from ocrtrain.evaluation.benchmarks.docvqa import measure


def test_a_question_of_two_types_counts_for_each() -> None:
    gold = Gold(("1/8/93", "1/8/1993"), "all", {"question types": ["handwritten", "form"]})
    [value] = measure("1/8/1990", gold).values
    assert value.value == pytest.approx(1 - 1 / 8)
    assert value.groups == {"question types": ("handwritten", "form")}
    assert measure("1/8/1990", gold).right and not measure("none", gold).right
    assert measure("x", Gold(("x",), "all", {})).values[0].groups == {"question types": ()}
