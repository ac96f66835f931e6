import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import UsageError
from ocrdata.sources.spans import Span


@given(st.integers(0, 999), st.integers(0, 999))
def test_a_span_is_read_back_from_its_text(one: int, other: int) -> None:
    span = Span(*sorted((one, other)))
    assert Span.of("--size", str(span), 0, 999) == span
    assert list(span.values) == list(range(span.low, span.high + 1))


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "3..", "..3", "5..3", "1..2..3", "1.5", "\u0663", "0", "9..11"]
)
def test_what_is_no_span_is_refused_with_the_flag(text: str) -> None:
    with pytest.raises(UsageError, match=r"--size .*from 1 to 10"):
        Span.of("--size", text, 1, 10)
