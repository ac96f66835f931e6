from __future__ import annotations

import pytest

from ocrdata.runtime.cache_flags import add_cache_flags, cache_faults
from ocrdata.runtime.cli import Parser


@pytest.mark.parametrize(
    ("words", "faults"),
    [
        ([], []),
        (["--cache", "d", "--cache-limit", "20GB"], []),
        (["--cache", "d"], ["--cache needs --cache-limit"]),
        (
            ["--cache", "s3://b/c?key=x", "--cache-limit", "0"],
            ["--cache s3://...: must be a folder"],
        ),
        (["--cache-limit", "20GB"], ["--cache-limit needs --cache"]),
        (["--cache", "d", "--cache-limit", "20 GHz"], ["--cache-limit: invalid size '20 GHz'"]),
        (["--cache-limit", "much"], ["--cache-limit needs --cache", "--cache-limit: invalid"]),
    ],
)
def test_the_flags_go_together(words: list[str], faults: list[str]) -> None:
    parser = Parser(prog="x", description="")
    add_cache_flags(parser)
    values = parser.parse_args(words)
    found = list(cache_faults(values.cache, values.cache_limit))
    assert len(found) == len(faults)
    assert all(told.startswith(fault) for told, fault in zip(found, faults, strict=True))
