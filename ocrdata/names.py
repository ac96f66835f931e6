"""The file names of a shard: its two endings, and the stem that all files beside it begin with.

`NAME-000.tar` is plain, `NAME-000.tar.zst` compressed; both have the stem `NAME-000`, so that two
such files in one folder would share their index, and are refused where a spec names both.
"""

from __future__ import annotations

import os
from pathlib import Path

PLAIN, COMPRESSED = ".tar", ".tar.zst"


def is_shard(name: str) -> bool:
    """Whether a file of this name is a shard."""
    return name.endswith((PLAIN, COMPRESSED))


def is_compressed(name: str) -> bool:
    """Whether a file of this name is a compressed shard."""
    return name.endswith(COMPRESSED)


def shard_stem(name: str) -> str:
    """'chartqa-003.tar' and 'chartqa-003.tar.zst' -> 'chartqa-003'; other names as they are."""
    return name.removesuffix(COMPRESSED).removesuffix(PLAIN)


def beside(shard: Path, suffix: str) -> Path:
    """The file of a shard with this suffix: NAME-000.tar, '.index.parquet' -> NAME-000.index..."""
    return shard.with_name(shard_stem(shard.name) + suffix)


def can_be_a_path(text: str) -> bool:
    """False for what the system has no name for: a NUL, or half a surrogate pair that stands for
    no byte."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False
