from pathlib import Path
from typing import Any

import pytest

from ocrdata.conversion.options import ConversionOptions
from ocrdata.errors import UsageError

OUT = Path("out")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "a/b"}, "--name 'a/b': .*letters, digits, _ and -"),
        ({"name": "-a"}, "--name '-a'"),
        ({"shard_samples": 0}, "--shard-samples 0: .*1 or more"),
        ({"workers": 0}, "--workers 0"),
        ({"start": -1}, "--start -1: .*0 or more"),
        ({"stop": 0}, "--stop 0"),
        ({"limit": 0}, "--limit 0"),
        ({"stop": 5, "limit": 5}, "--stop and --limit"),
        ({"compress": "gzip"}, "--compress gzip: .*zstd"),
        ({"max_reject_fraction": 1.5}, "--max-reject-fraction 1.5: .*0 .*1"),
    ],
)
def test_invalid_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        ConversionOptions(OUT, **{"name": "x", **values})


@pytest.mark.parametrize(
    ("values", "rows"),
    [
        ({}, range(50)),
        ({"start": 7}, range(7, 50)),
        ({"stop": 20}, range(20)),
        ({"start": 7, "limit": 5}, range(7, 12)),
        ({"limit": 500}, range(50)),
    ],
)
@pytest.mark.parametrize("compress", [None, "zstd"])
def test_the_layout_covers_the_slice(
    values: dict[str, Any], rows: range, compress: str | None
) -> None:
    layout = ConversionOptions(OUT, "x", shard_samples=10, compress=compress, **values).layout(50)
    assert [row for shard in layout.shards for row in layout.span(shard)] == list(rows)
    assert layout.file(3) == ("x-003.tar.zst" if compress else "x-003.tar")


def test_slices_out_of_range() -> None:
    for values in ({"stop": 51}, {"start": 50}, {"start": 60, "limit": 5}):
        with pytest.raises(UsageError, match=r"rows \[\d+:\d+\]: .*50 rows"):
            ConversionOptions(OUT, "x", **values).layout(50)
