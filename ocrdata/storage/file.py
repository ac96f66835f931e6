"""Files by location: what an open file can do, and the ways to open, measure and read one.

Near and far are the same to all above `storage`: local files and the tars inside compressed shards
satisfy `File`. This version opens local files; a URL is refused in one line.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import xxhash

from ocrdata.errors import TransportError, UsageError
from ocrdata.storage.files import read_file
from ocrdata.storage.local import LocalFile
from ocrdata.storage.location import Location, LocationLike

_CHUNK = 1 << 20

OPEN_FILES = 64
"""Files a pool keeps open; the usual limit of a process is 1,024."""


class File(Protocol):
    """Bytes that do not change while they are open. Safe to share between threads.

    All attributes are fixed when the file is opened.
    """

    @property
    def name(self) -> str:
        """What errors call the file."""

    @property
    def location(self) -> Location:
        """Where it was opened."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def version(self) -> str:
        """Identifies the content: another version is another file, even of the same size."""

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes at `offset`. Raises ShardError; TruncatedError past the end."""

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes at `offset`. Raises as `read` does."""

    def hint(self, ranges: Sequence[tuple[int, int]]) -> None:
        """These (offset, size) will be read soon, in this order. Never required, never an error."""

    def close(self) -> None:
        """Release what is held; reading afterwards is an error. Idempotent."""


def open_file(location: LocationLike) -> File:
    """Open a file for reading. Raises TransportError where it is missing or cannot be opened."""
    return LocalFile(local(location))


def local(location: LocationLike) -> Location:
    """A location that can be read here. Raises UsageError for a URL."""
    found = Location.of(location)
    if found.scheme:
        raise UsageError(
            f"{found}: this version reads local files only; copy the file here and name the copy"
        )
    return found


def exists(location: LocationLike) -> bool:
    """Whether a file is there; False also for a name that no file can have."""
    path = local(location).path
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def size_of(location: LocationLike) -> int:
    """Bytes of a file. Raises TransportError where it is missing."""
    found = local(location)
    try:
        return found.path.stat().st_size
    except OSError as exc:
        raise TransportError(str(found), f"cannot be opened: {exc.strerror}") from exc


def read_all(location: LocationLike) -> bytes:
    """All bytes of a file. Raises FileNotFoundError, PermissionError and other OSErrors as they
    are, TransportError for anything but a regular file."""
    return read_file(local(location).path)


def is_folder(location: LocationLike) -> bool:
    """Whether a folder is there; False also for a name that no folder can have."""
    path = local(location).path
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def list_names(folder: LocationLike) -> list[str]:
    """The names in a folder, sorted; none where there is no such folder."""
    path = local(folder).path
    return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []


def digest_of_file(file: File) -> str:
    """The xxh3_128 of a whole file, as 32 hexadecimal digits."""
    hasher = xxhash.xxh3_128()
    for start in range(0, file.size, _CHUNK):
        hasher.update(file.read(start, min(_CHUNK, file.size - start)))
    return str(hasher.hexdigest())


class FilePool:
    """The files in use, at most `limit` of them held open. Safe to share between threads."""

    def __init__(self, limit: int = OPEN_FILES) -> None:
        self.limit = limit
        self._files: OrderedDict[Location, File] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, location: Location) -> File:
        """The open file at `location`, opened now where it was not. Raises ShardError."""
        with self._lock:
            file = self._files.get(location)
            if file is None:
                file = self._files[location] = open_file(location)
                if len(self._files) > self.limit:
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(location)
            return file
