"""Local files, read by position with `pread`.

They are not memory-mapped: if a mapped file shrinks, reading it kills the process instead of
raising an error. A file is closed once nothing refers to it any more, so that a pool can evict a
file that another thread is still reading.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ocrdata.errors import TransportError, TruncatedError
from ocrdata.storage.files import disk_error, open_with_status
from ocrdata.storage.location import Location, LocationLike


class LocalFile:
    """An open local file: a `File`. `size` and `version` are those at opening. Safe to share
    between threads."""

    __slots__ = ("__weakref__", "_changed", "_handle", "location", "name", "size")

    def __init__(self, location: LocationLike) -> None:
        self._handle = -1
        self.location = Location.of(location)
        self.name = str(self.location)
        path = self.location.local_text
        try:
            self._handle, status = open_with_status(path, self.name)
        except FileNotFoundError as exc:
            raise TransportError(
                self.name,
                "the file is missing",
                remedy="restore it, or name only shards that exist",
            ) from exc
        except OSError as exc:
            raise disk_error(path, exc) or TransportError(
                self.name, f"cannot be opened: {exc.strerror}"
            ) from exc
        self.size = status.st_size
        self._changed = status.st_mtime_ns, status.st_ino

    @property
    def version(self) -> str:
        """Its modification time and inode."""
        return "{:x}-{:x}".format(*self._changed)

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes at `offset`. Raises TruncatedError if the file ends before that."""
        try:
            data = os.pread(self._handle, size, offset)
            while len(data) < size:
                more = os.pread(self._handle, size - len(data), offset + len(data))
                if not more:
                    raise self._too_short(offset + size)
                data += more
        except OSError as exc:
            raise self._unreadable(exc) from exc
        return data

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each (offset, size), with one `pread` each: one for all would need another
        copy to split it. Raises like `read`."""
        return [self.read(offset, size) for offset, size in ranges]

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes at `offset`. Raises like `read`."""
        done = 0
        try:
            while done < len(view):
                count = os.preadv(self._handle, [view[done:]], offset + done)
                if not count:
                    raise self._too_short(offset + len(view))
                done += count
        except OSError as exc:
            raise self._unreadable(exc) from exc

    def hint(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Does nothing: the kernel reads ahead by itself."""

    def unhint(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Does nothing, like `hint`."""

    def forget(self, offset: int, size: int) -> None:
        """Does nothing: bytes always come from the disk."""

    def _too_short(self, needed: int) -> TruncatedError:
        size = os.fstat(self._handle).st_size
        return TruncatedError(
            self.name,
            f"the file ends at byte {size:,}, but {needed:,} bytes are needed",
            remedy="it was truncated after it was written; recreate or copy it again",
        )

    def _unreadable(self, exc: OSError) -> TransportError:
        return TransportError(self.name, f"cannot be read from disk: {exc.strerror}")

    def close(self) -> None:
        """Close now; otherwise the file is closed once nothing refers to it any more."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def __del__(self) -> None:
        self.close()
