import pytest

from ocrtrain.evaluation.benchmarks.base import Gold
from ocrtrain.evaluation.benchmarks.ocrbench import measure


@pytest.mark.parametrize(
    ("answer", "golds", "name", "right"),
    [
        ("It says Centre.", ("CENTRE",), "IIIT5K", True),
        ("CENT RE", ("CENTRE",), "IIIT5K", False),
        ("antonio's", ("ANTONIOS", "ANTONIO'S"), "ctw", True),
        ("a\nb", ("a b",), "SROIE", True),
        ("\\frac{9-1}{2}", ("\\frac { 9 - 1 } { 2 }\n",), "HME100k", True),
        ("\\FRAC{9-1}{2}", ("\\frac { 9 - 1 } { 2 }\n",), "HME100k", False),
        ("", ("x",), "IIIT5K", False),
    ],
)
def test_hand_computed(answer: str, golds: tuple[str, ...], name: str, right: bool) -> None:
    found = measure(answer, Gold(golds, "Doc-oriented VQA", {"data set": name}))
    assert (found.values[0].value, found.right) == (float(right), right)
    assert found.values[0].groups == {"type": ("Doc-oriented VQA",)}
