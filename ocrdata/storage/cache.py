"""The cache folder: where a file that belongs to a tar goes when it cannot lie beside it.

Its name is made of the tar's whole path, size and modification time, so that two tars with the
same base name never meet.
"""

from __future__ import annotations

import os
from pathlib import Path

from ocrdata.errors import ShardError
from ocrdata.storage.sealed import digest_of

CACHE_VARIABLE = "OCR_SHARDS_CACHE"


def cache_folder() -> Path:
    """Where indexes, and other files of a tar, go that cannot lie beside it."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "ocr-shards"


def cached_path(tar: Path, suffix: str) -> Path:
    """The cache's name for what belongs to a tar as it is now and cannot lie beside it."""
    try:
        status = tar.stat()
    except FileNotFoundError as exc:
        raise ShardError(str(tar), "the file is gone") from exc
    identity = os.fsencode(tar.resolve()) + b"\0%d\0%d" % (status.st_size, status.st_mtime_ns)
    return cache_folder() / (digest_of(identity) + suffix)
