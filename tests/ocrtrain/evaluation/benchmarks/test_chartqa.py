import pytest

from ocrtrain.evaluation.benchmarks.base import Gold
from ocrtrain.evaluation.benchmarks.chartqa import measure


@pytest.mark.parametrize(
    ("answer", "gold", "relaxed", "strict"),
    [
        ("14.7", "14", 1, 1),  # exactly 5 %
        ("14.71", "14", 0, 0),
        ("YES", "Yes", 1, 1),
        ("2008", "2010", 1, 0),  # a year within 5 %
        ("2010", "2010", 1, 1),
        ("0.12", "12%", 1, 1),
        ("12", "12%", 0, 0),
    ],
)
def test_hand_computed(answer: str, gold: str, relaxed: int, strict: int) -> None:
    found = measure(answer, Gold((gold,), "human", {}))
    assert [value.value for value in found.values] == [relaxed, strict]
    assert all(value.groups == {"questions": ("human",)} for value in found.values)
    assert found.right is bool(relaxed)
