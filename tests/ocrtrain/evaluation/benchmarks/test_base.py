from ocrtrain.evaluation.benchmarks.base import Measured, Value


def test_a_line_has_what_was_measured_and_what_was_not() -> None:
    value = Value("ANLS", 0.5, {"type": ("form", "table")})
    assert Measured((value,), True).to_json("docvqa") == {
        "name": "docvqa", "right": True,
        "values": [["ANLS", 0.5, {"type": ["form", "table"]}]],
    }  # fmt: skip
    assert Measured((), left_out={"math tests": 2}).to_json("x") == {
        "name": "x", "values": [], "left_out": {"math tests": 2},
    }  # fmt: skip
