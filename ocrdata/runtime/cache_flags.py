"""The flags `--cache` and `--cache-limit`, the same for all commands that read shards from afar."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from ocrdata.runtime.units import parse_bytes

CACHE_HELP = (
    "folder on a local disk that keeps what is read from afar, for the next time it is needed; "
    "processes may share it"
)
LIMIT_HELP = "what --cache may take of the disk at most: 20GB, 500MB, 1.5TiB"


def add_cache_flags(parser: argparse.ArgumentParser) -> None:
    """Add both flags. `cache_faults` says what is wrong with their values."""
    parser.add_argument("--cache", default="", metavar="DIR", help=CACHE_HELP)
    parser.add_argument("--cache-limit", default="", metavar="SIZE", help=LIMIT_HELP)


def cache_faults(cache: str, limit: str) -> Iterator[str]:
    """What is wrong with the values of the two flags; "" is a flag not given."""
    if "://" in cache:
        yield f"--cache {cache.partition('://')[0]}://...: must be a folder on a local disk"
    if cache and not limit:
        yield "--cache needs --cache-limit, what it may take of the disk: 20GB, 500MB"
    if limit and not cache:
        yield "--cache-limit needs --cache, the folder that it limits"
    if limit:
        try:
            parse_bytes(limit)
        except ValueError as exc:
            yield f"--cache-limit: {exc}"
