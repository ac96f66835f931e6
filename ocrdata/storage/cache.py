"""The cache folder: holds files that belong to a tar, such as its index, if they cannot be written
beside it, and what makes reading faster.

The name of a `cached_path` is a digest of the tar's full path, size and modification time, so tars
with the same base name do not collide, and a changed tar gets a new file. The files in a
`scratch_folder` are found by the path alone: those of a changed tar are replaced, so they must say
what they belong to.
"""

from __future__ import annotations

import os
from pathlib import Path

from ocrdata.errors import ShardError
from ocrdata.storage.location import Location, LocationLike
from ocrdata.storage.sealed import digest_of

CACHE_VARIABLE = "OCR_SHARDS_CACHE"


def cache_folder() -> Path:
    """`$OCR_SHARDS_CACHE`, or `~/.cache/ocr-shards`."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "ocr-shards"


def cached_path(tar: LocationLike, suffix: str) -> Location:
    """The path in the cache for a file of a tar, as the tar is now. Raises ShardError if the tar is
    missing, OSError if it cannot be accessed."""
    path = Location.of(tar).path
    try:
        status = path.stat()
    except FileNotFoundError as exc:
        raise ShardError(str(path), "the file is missing") from exc
    identity = os.fsencode(path.resolve()) + b"\0%d\0%d" % (status.st_size, status.st_mtime_ns)
    return Location.of(cache_folder() / (digest_of(identity) + suffix))


def scratch_folder(folder: str) -> Path:
    """The folder of the cache for files that belong to the tars in `folder`. Raises OSError if the
    cache folder has no place, as for a user without a home."""
    try:
        return cache_folder() / digest_of(os.fsencode(os.path.realpath(folder)))
    except RuntimeError as exc:
        raise OSError(f"no home folder: {exc}") from exc
