import pytest

from ocrtrain.evaluation.benchmarks.anls import script_anls


@pytest.mark.parametrize(
    ("answer", "golds", "expected"),
    [
        ("coffee", ["coffee"], 1.0),
        (" COFFEE ", ["coffee"], 1.0),
        ("cofee", ["coffee"], 1 - 1 / 6),
        ("coffees", ["coffee", "coffees"], 1.0),
        ("abcd", ["abxx"], 0.5),  # at exactly the threshold the script counts it
        ("abcd", ["axxx"], 0.0),
        ("a\n b", ["a b"], 1.0),
        ("a  b", ["a c"], 1 - 1 / 4),  # lengths are those before white space is folded
        ("", ["coffee"], 0.0),
        ("", [""], 1.0),
        ("a, b", ["a b"], 1 - 1 / 4),  # punctuation counts
    ],
)
def test_hand_computed(answer: str, golds: list[str], expected: float) -> None:
    assert script_anls(answer, golds) == pytest.approx(expected)
