from collections.abc import Callable

import pytest

from ocrdata.sources.base import Source
from ocrdata.sources.charts import ChartsSource
from ocrdata.sources.glyphs import GlyphOptions, GlyphsSource
from ocrdata.sources.lines import LinesOptions, LinesSource
from ocrdata.sources.pages import PagesOptions, PagesSource
from ocrdata.sources.sums import SumsSource
from ocrdata.sources.synthetic import SyntheticSource


def glyphs(rows: int, *, seed: int) -> SyntheticSource:
    return GlyphsSource(rows, GlyphOptions(), seed=seed)


def lines(rows: int, *, seed: int) -> SyntheticSource:
    return LinesSource(rows, LinesOptions(), seed=seed)


def pages(rows: int, *, seed: int) -> SyntheticSource:
    return PagesSource(rows, PagesOptions(height=100), seed=seed)


SOURCES = [ChartsSource, SumsSource, glyphs, lines, pages]


@pytest.mark.parametrize("kind", SOURCES)
def test_a_row_is_a_function_of_seed_and_number(kind: Callable[..., SyntheticSource]) -> None:
    whole = list(kind(8, seed=3).rows(0, 8))
    assert list(kind(100, seed=3).rows(5, 8)) == whole[5:]
    assert [number for number, _ in whole] == list(range(8))
    other = list(kind(8, seed=4).rows(0, 8))
    assert all(a != b for (_, a), (_, b) in zip(whole, other, strict=True))


@pytest.mark.parametrize("kind", SOURCES)
def test_it_follows_the_source_protocol(kind: Callable[..., SyntheticSource]) -> None:
    source: Source = kind(8, seed=3)
    assert source.count() == 8
    assert source.provenance == kind(8, seed=3).provenance
    assert source.provenance != kind(8, seed=4).provenance
    assert source.provenance != kind(9, seed=3).provenance
