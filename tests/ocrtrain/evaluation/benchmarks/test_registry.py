"""Every benchmark says what its scores depend on; samples name theirs."""

import pytest

from ocrdata.errors import RejectedRow
from ocrdata.sources.registry import REGISTRY
from ocrtrain.evaluation.benchmarks.base import Benchmark
from ocrtrain.evaluation.benchmarks.registry import BENCHMARKS, benchmark_of, facts_of


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=list(BENCHMARKS))
def test_a_benchmark_says_what_its_scores_depend_on(benchmark: Benchmark) -> None:
    for text in ("title", "version", "definition", "normalisation", "checked"):
        assert getattr(benchmark, text).strip(), text
    assert "layout" in benchmark.checked and "measure" in benchmark.checked
    names = [column.name for column in benchmark.columns]
    assert names and len(names) == len(set(names))


def test_every_benchmark_has_a_source() -> None:
    assert set(BENCHMARKS) - {"chartqa"} <= set(REGISTRY) and "chartqa-folder" in REGISTRY


def test_the_benchmark_of_a_sample() -> None:
    assert benchmark_of({}) is None and benchmark_of({"benchmark": "docvqa"}) is None
    assert benchmark_of({"benchmark": {"name": "docvqa"}}) is BENCHMARKS["docvqa"]
    with pytest.raises(RejectedRow, match=r"'other'.*docvqa"):
        benchmark_of({"benchmark": {"name": "other"}})


def test_the_facts_of_its_turns() -> None:
    assert facts_of({}, 2) == facts_of({"benchmark": {"name": "docvqa"}}, 2) == [{}, {}]
    assert facts_of({"benchmark": {"facts": [{"a": 1}]}}, 1) == [{"a": 1}]
    for facts in ([], [{}], [{}, 3], {"a": 1}):
        with pytest.raises(RejectedRow, match="each of 2 turns"):
            facts_of({"benchmark": {"facts": facts}}, 2)
