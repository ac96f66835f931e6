"""Finds the index file of a tar, or makes it.

It lies beside the tar; where that folder is not to be written to, in the cache folder, under a
name made of the tar's whole path, size and time of change: two tars with one base name never meet.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ocrdata.errors import DiskError, ShardError
from ocrdata.files import make_folder
from ocrdata.format import digest_of
from ocrdata.index import SUFFIX, index_path, write_index
from ocrdata.indexing import index_tar
from ocrdata.locks import only_one

CACHE_VARIABLE = "OCR_SHARDS_CACHE"
_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where indexes, and other files of a tar, go that cannot lie beside it."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "ocr-shards"


def cached_index_path(tar: Path) -> Path:
    """The cache's name for the index of a tar as it is now."""
    return cached_path(tar, SUFFIX)


def cached_path(tar: Path, suffix: str) -> Path:
    """The cache's name for what belongs to a tar as it is now and cannot lie beside it."""
    try:
        status = tar.stat()
    except FileNotFoundError as exc:
        raise ShardError(str(tar), "the file is gone") from exc
    identity = os.fsencode(tar.resolve()) + b"\0%d\0%d" % (status.st_size, status.st_mtime_ns)
    return cache_folder() / (digest_of(identity) + suffix)


def find_index(tar: Path) -> Path:
    """The index file of a tar; made now, by reading the tar whole once, where there is none.

    Raises ShardError where the tar is not sound, DiskError where no index can be written.
    """
    beside = index_path(tar)
    if os.path.exists(beside):
        return beside
    cached = cached_index_path(tar)
    if cached.exists():
        return cached
    try:
        return _make(tar, beside)
    except (OSError, DiskError):
        make_folder(cached.parent)
        return _make(tar, cached)


def _make(tar: Path, path: Path) -> Path:
    with only_one(path):
        if not path.exists():
            _log.warning("%s has no index; reading it whole, once, to make one", tar)
            write_index(path, index_tar(tar))
    return path
