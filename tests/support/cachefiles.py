"""Objects whose bytes are known, for a bounded cache; and what lies in its folder."""

from __future__ import annotations

import os
import random
import re
from functools import lru_cache
from pathlib import Path

from ocrdata.storage.block_cache import BlockCache
from ocrdata.storage.sealed import digest_of

KEYS = ["a" * 32, "b0" * 16, "0123456789abcdef" * 2, "0" * 8]
FILES = [f"file {number}" for number in range(5)]
_PERIOD = 65_521
_NAMES = {digest_of(name.encode()): name for name in FILES}


@lru_cache
def _period(key: str) -> bytes:
    return random.Random(_NAMES.get(key, key)).randbytes(_PERIOD)


def content(key: str, start: int, size: int) -> bytes:
    """Bytes [start, start + size) of the object with this key, or file of this name."""
    first = start % _PERIOD
    return (_period(key) * (1 + (first + size) // _PERIOD))[first : first + size]


def entry_files(folder: Path) -> dict[tuple[str, int, int], bytes]:
    """(key, start, stop) -> bytes of all entries, read without the code under test."""
    found = {}
    for path in folder.glob("*/*"):
        name = re.fullmatch(r"([0-9a-f]{12})-([0-9a-f]{12})", path.name)
        if name and not path.parent.is_symlink():
            key = path.parent.name.partition("-")[0]
            found[key, int(name[1], 16), int(name[2], 16)] = path.read_bytes()[:-16]
    return found


def leftovers(folder: Path) -> list[Path]:
    """Files that are being written, or whose writer died; and empty folders."""
    return [
        path
        for path in folder.rglob("*")
        if path.name.startswith(".") or (path.is_dir() and not any(path.iterdir()))
    ]


def disk_bytes(folder: Path) -> int:
    """Bytes of the disk that all in a folder takes, at one moment; what vanishes meanwhile is not
    counted."""
    total = 0
    for place, _, files in os.walk(folder, onerror=lambda _: None):
        for name in [*files, "."]:
            try:
                status = os.lstat(os.path.join(place, name))
            except FileNotFoundError:
                continue
            if (place, name) != (str(folder), "."):
                total += status.st_blocks * 512
    return total


def put_in_steps(cache: BlockCache, seed: int, steps: int, *, largest: int = 20_000) -> None:
    """Use a cache as a training run does; raises AssertionError for wrong bytes."""
    pick = random.Random(seed)
    for _ in range(steps):
        key, start = pick.choice(KEYS), pick.randrange(40) * largest
        size = pick.randint(1, largest)
        found = cache.get(key, start, start + size)
        assert found in (None, content(key, start, size)), (key, start, size)
        if found is None:
            cache.put(key, start, content(key, start, size), needed_in=pick.uniform(0, 900))
        if pick.random() < 0.1:
            cache.needed(key, start, pick.uniform(0, 900))
        if pick.random() < 0.05:
            cache.discard(key, start, start + size)
        name = pick.choice(FILES)
        found = cache.get_file(name)
        assert found in (None, content(name, 0, 3_000)), name
        if found is None:
            cache.put_file(name, content(name, 0, 3_000))
