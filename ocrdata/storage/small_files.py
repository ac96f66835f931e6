"""Small files that belong to shards at URLs, kept whole: blocks of indexes, token counts.

They are in the process's bounded cache, if it has one, and count towards its limit; else in the
cache folder, where nothing evicts them. What is read must be verified by its reader: it may be
old, and in the cache folder torn by a power cut.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ocrdata.errors import DiskError
from ocrdata.storage.cache import CACHE_VARIABLE, cache_folder
from ocrdata.storage.fetching import fetcher
from ocrdata.storage.files import make_folder, read_file, replace_file
from ocrdata.storage.sealed import digest_of

_log = logging.getLogger(__name__)


def get_small(name: str) -> bytes | None:
    """What is kept under a name, which says all that its content depends on; None if nothing is."""
    cache = fetcher().cache
    if cache is not None:
        return cache.get_file(name)
    try:
        return read_file(_path(name))
    except (OSError, RuntimeError):  # RuntimeError: no home folder
        return None


def put_small(name: str, data: bytes) -> bool:
    """Keep a small file in place of what was kept under its name; False if that is impossible."""
    cache = fetcher().cache
    if cache is not None:
        return cache.put_file(name, data)
    try:
        path = _path(name)
        make_folder(path.parent)
        replace_file(path, data)
    except (OSError, DiskError, RuntimeError) as exc:
        _log.warning(
            "indexes and token counts from URLs cannot be kept: %s; they are fetched again when "
            "they are needed; choose another folder with %s", exc, CACHE_VARIABLE)  # fmt: skip
        return False
    return True


def _path(name: str) -> Path:
    return cache_folder() / "urls" / digest_of(name.encode())
