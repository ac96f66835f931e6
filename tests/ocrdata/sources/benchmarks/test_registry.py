from ocrdata.sources.benchmarks.registry import LAYOUTS
from ocrdata.sources.registry import REGISTRY


def test_every_layout_is_a_kind_of_make_shards() -> None:
    assert set(LAYOUTS) <= set(REGISTRY)
    assert all(name == layout.benchmark for name, layout in LAYOUTS.items())
