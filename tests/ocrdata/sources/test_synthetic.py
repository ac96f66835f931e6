import pytest

from ocrdata.sources.base import Source
from ocrdata.sources.charts import ChartsSource
from ocrdata.sources.sums import SumsSource
from ocrdata.sources.synthetic import SyntheticSource

SOURCES = [ChartsSource, SumsSource]


@pytest.mark.parametrize("kind", SOURCES)
def test_a_row_is_a_function_of_seed_and_number(kind: type[SyntheticSource]) -> None:
    whole = list(kind(8, seed=3).rows(0, 8))
    assert list(kind(100, seed=3).rows(5, 8)) == whole[5:]
    assert [number for number, _ in whole] == list(range(8))
    other = list(kind(8, seed=4).rows(0, 8))
    assert all(a != b for (_, a), (_, b) in zip(whole, other, strict=True))


@pytest.mark.parametrize("kind", SOURCES)
def test_it_follows_the_source_protocol(kind: type[SyntheticSource]) -> None:
    source: Source = kind(8, seed=3)
    assert source.count() == 8
    assert source.provenance == kind(8, seed=3).provenance
    assert source.provenance != kind(8, seed=4).provenance
    assert source.provenance != kind(9, seed=3).provenance
