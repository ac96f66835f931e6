"""The benchmarks whose questions are in one JSON file, by the first argument of `make_shards`."""

from __future__ import annotations

from ocrdata.sources.benchmarks import docvqa, fox, infographicvqa, ocrbench, omnidocbench, textvqa
from ocrdata.sources.benchmarks.questions import Layout

LAYOUTS: dict[str, Layout] = {
    layout.benchmark: layout
    for layout in (
        docvqa.LAYOUT,
        infographicvqa.LAYOUT,
        textvqa.LAYOUT,
        ocrbench.LAYOUT,
        fox.LAYOUT,
        omnidocbench.LAYOUT,
    )
}
