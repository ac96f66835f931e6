"""VQA accuracy: hand-computed cases of the leave-one-out mean and of the processing of answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrtrain.evaluation.benchmarks.base import Gold
from ocrtrain.evaluation.benchmarks.textvqa import CONTRACTIONS, measure, processed


def accuracy(answer: str, people: list[str]) -> float:
    facts: dict[str, Any] = {"answers": people}
    return measure(answer, Gold(tuple(people), "all", facts)).values[0].value


@pytest.mark.parametrize(
    ("agreeing", "expected"),
    [
        (0, 0.0),
        # One of ten: for that person no other agrees, for the nine others one does.
        (1, 9 * (1 / 3) / 10),
        (2, (2 * (1 / 3) + 8 * (2 / 3)) / 10),
        (3, (3 * (2 / 3) + 7 * 1) / 10),
        (4, 1.0),
        (10, 1.0),
    ],
)
def test_the_leave_one_out_mean(agreeing: int, expected: float) -> None:
    people = ["nokia"] * agreeing + [f"other {at}" for at in range(10 - agreeing)]
    assert accuracy("Nokia.", people) == pytest.approx(expected)
    assert measure("nokia", Gold(("nokia",), "", {"answers": people})).right is (agreeing > 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Nokia", "nokia"),
        ("two dogs", "2 dogs"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("1,000", "1000"),
        ("3.5 mm.", "3.5 mm"),
        ("u.s.a.", "usa"),
        ("coca-cola", "coca cola"),
        ("coca - cola", "coca cola"),
        ("is it?", "is it"),
        ("a\nb", "b"),  # 'a' is an article
        ("joe's", "joe 's"),
        ("none", "0"),
    ],
)
def test_processing(text: str, expected: str) -> None:
    assert processed(text) == expected


def test_the_limit_of_full_stops() -> None:
    assert processed("." * 40) == "." * 8


def test_the_table_of_contractions_has_the_published_size() -> None:
    """MMF's table has 120 entries; six change nothing, as they have capitals or stay the same."""
    assert len(CONTRACTIONS) == 114 and CONTRACTIONS["yall'd've"] == "y'all'd've"
    assert not any(key == value or key != key.lower() for key, value in CONTRACTIONS.items())


@given(st.text(alphabet="aeht 1,.?'-", max_size=12))
def test_an_answer_that_all_gave_is_right(text: str) -> None:
    assert accuracy(text, [text] * 10) == 1.0
