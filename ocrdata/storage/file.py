"""Opens and reads the file at a location. `File` is the interface of an open file.

Code outside `storage` reads through `File` only, which local files, objects at URLs and the tars
inside compressed shards implement. Nothing at a URL is listed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import xxhash

from ocrdata.errors import TransportError
from ocrdata.storage.files import exists as path_exists
from ocrdata.storage.files import read_file
from ocrdata.storage.local import LocalFile
from ocrdata.storage.location import Location, LocationLike
from ocrdata.storage.recently_used import RecentlyUsed
from ocrdata.storage.remote import RemoteFile, fetch, status

_CHUNK = 1 << 20

OPEN_FILES = 64
"""Files a pool keeps open; the usual limit for a process is 1,024."""


class File(Protocol):
    """An open file, whose bytes must not change. Safe to share between threads.

    All properties are determined when the file is opened.
    """

    @property
    def name(self) -> str:
        """The name shown in errors."""

    @property
    def location(self) -> Location:
        """The location it was opened from."""

    @property
    def size(self) -> int:
        """Size in bytes."""

    @property
    def version(self) -> str:
        """Identifies the content: changes when the file is replaced, even by one of equal size."""

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes at `offset`. Raises ShardError; TruncatedError past the end."""

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (offset, size); ranges close together may be read in one request.
        Raises like `read`."""

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes at `offset`. Raises like `read`."""

    def hint(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Announce (offset, size) ranges that will be read soon, in this order. Only advice: never
        required, and never raises."""

    def unhint(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Announce that these ranges of `hint`, if they were not read yet, will not be read."""

    def forget(self, offset: int, size: int) -> None:
        """Read these bytes from their origin next time, as they turned out to be wrong."""

    def close(self) -> None:
        """Close the file; reading it afterwards is an error. Idempotent."""


def open_file(location: LocationLike, size: int | None = None) -> File:
    """Open a file for reading. `size`, if known, saves a request for one at a URL. Raises
    TransportError if it is missing or not a regular file, and DiskError if the disk refuses to open
    it, as without permission."""
    found = Location.of(location)
    return RemoteFile(found, size) if found.scheme else LocalFile(found)


def exists(location: LocationLike) -> bool:
    """Whether a file or folder exists; False also for impossible names. Raises TransportError if a
    server does not say."""
    found = Location.of(location)
    return status(found) is not None if found.scheme else path_exists(found.text)


def size_of(location: LocationLike) -> int:
    """The size of a file in bytes. Raises TransportError if it is missing."""
    found = Location.of(location)
    if found.scheme:
        return RemoteFile(found).size
    try:
        return os.stat(found.text).st_size
    except OSError as exc:
        raise TransportError(str(found), f"cannot be opened: {exc.strerror}") from exc


def read_all(location: LocationLike) -> bytes:
    """All bytes of a file. Raises OSError, such as FileNotFoundError, and TransportError if it
    is not a regular file, or cannot be read from a URL."""
    found = Location.of(location)
    return bytes(fetch(found).data) if found.scheme else read_file(found.path)


def is_folder(location: LocationLike) -> bool:
    """Whether a folder exists; False also for impossible names, and for URLs."""
    found = Location.of(location)
    try:
        return not found.scheme and found.path.is_dir()
    except OSError:  # a name that is too long
        return False


def list_names(folder: LocationLike) -> list[str]:
    """The names in a folder, sorted; [] if there is no such folder. Raises TransportError if it
    cannot be read."""
    found = Location.of(folder)
    if not is_folder(found):
        return []
    try:
        return sorted(os.listdir(found.path))
    except OSError as exc:
        raise TransportError(str(found), f"cannot be opened: {exc.strerror}") from exc


def digest_of_file(file: File) -> str:
    """The xxh3_128 digest of a whole file, as 32 hexadecimal digits."""
    hasher = xxhash.xxh3_128()
    for start in range(0, file.size, _CHUNK):
        hasher.update(file.read(start, min(_CHUNK, file.size - start)))
    return str(hasher.hexdigest())


class FilePool:
    """Keeps the `limit` files used last open. Safe to share between threads: a file that is slow to
    open delays only its own readers."""

    def __init__(self, limit: int = OPEN_FILES) -> None:
        self._files: RecentlyUsed[str, File] = RecentlyUsed(limit)

    def get(self, location: Location) -> File:
        """The file at `location`, opened if it is not open yet. Raises ShardError."""
        # By its text: a str keeps its hash, a Location does not.
        return self._files.get(location.text, partial(open_file, location))
