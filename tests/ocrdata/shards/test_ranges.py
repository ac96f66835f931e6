from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocrdata.errors import SpecError
from ocrdata.shards.ranges import MAX_FILES, expand_ranges, has_range

NAMES = st.text("abc-_./", max_size=5)


@settings(max_examples=40)
@given(NAMES, st.integers(0, 2_000), st.integers(0, 40), st.integers(0, 6), st.booleans(), NAMES)
def test_a_range_is_every_number_with_the_digits_of_its_ends(
    before: str, first: int, more: int, digits: int, angles: bool, after: str
) -> None:
    start, stop = f"{first:0{digits}d}", f"{first + more:0{digits}d}"
    text = f"{before}<{start}..{stop}>{after}" if angles else f"{before}{{{start}..{stop}}}{after}"
    padded = any(len(end) > 1 and end[0] == "0" for end in (start, stop))
    width = max(len(start), len(stop)) if padded else 1
    assert has_range(text)
    assert expand_ranges(text) == [
        f"{before}{number:0{width}d}{after}" for number in range(first, first + more + 1)
    ]


def test_several_ranges_and_lists_are_a_product() -> None:
    assert expand_ranges("{a,b}-<8..10>.tar") == [
        "a-8.tar", "a-9.tar", "a-10.tar", "b-8.tar", "b-9.tar", "b-10.tar",
    ]  # fmt: skip
    assert expand_ranges("plain.tar") == ["plain.tar"] and not has_range("plain{1}.tar")


@pytest.mark.parametrize("text", ["x-{5..4}.tar", "x-<5..4>.tar"])
def test_descending_ranges_are_refused(text: str) -> None:
    with pytest.raises(SpecError, match="descending"):
        expand_ranges(text)


def test_too_many_files_are_refused_before_they_are_named() -> None:
    for text in (f"x-{{0..{MAX_FILES}}}", "x-{0..9999}-{0..9999}"):
        with pytest.raises(SpecError, match="more than 1,000,000 files"):
            expand_ranges(text)
