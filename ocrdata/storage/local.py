"""Local files, read by position with `pread`.

Never a memory map: a file that shrinks while it is read must end as an error, not as the death of
the process. A file is closed when its last user lets go of it, so that the pool may forget a file
another thread is reading.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path

import xxhash

from ocrdata.errors import TransportError, TruncatedError
from ocrdata.storage.files import explain_disk, open_regular

OPEN_FILES = 64
"""Files a pool keeps open; the usual limit of a process is 1,024."""

_CHUNK = 1 << 20


class LocalFile:
    """One open file. `size` is what it was on opening. Safe to share between threads."""

    __slots__ = ("__weakref__", "_handle", "modified", "name", "path", "size")

    def __init__(self, path: Path, name: str = "") -> None:
        self._handle = -1
        self.path = path
        self.name = name or str(path)
        try:
            with explain_disk(path):
                self._handle = open_regular(path, self.name)
        except FileNotFoundError as exc:
            raise TransportError(
                self.name, "the file is gone", remedy="put it back, or name the shards there are"
            ) from exc
        except OSError as exc:
            raise TransportError(self.name, f"cannot be opened: {exc.strerror}") from exc
        status = os.fstat(self._handle)
        self.size = status.st_size
        self.modified = status.st_mtime_ns

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes at `offset`. Raises TruncatedError where the file ends before."""
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

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes at `offset`. Raises TruncatedError as `read` does."""
        done = 0
        try:
            while done < len(view):
                count = os.preadv(self._handle, [view[done:]], offset + done)
                if not count:
                    raise self._too_short(offset + len(view))
                done += count
        except OSError as exc:
            raise self._unreadable(exc) from exc

    def digest(self) -> str:
        """The xxh3_128 of the whole file, as 32 hexadecimal digits."""
        hasher = xxhash.xxh3_128()
        for start in range(0, self.size, _CHUNK):
            hasher.update(self.read(start, min(_CHUNK, self.size - start)))
        return str(hasher.hexdigest())

    def _too_short(self, needed: int) -> TruncatedError:
        size = os.fstat(self._handle).st_size
        return TruncatedError(
            self.name,
            f"the file ends at byte {size:,}, byte {needed:,} is needed",
            remedy="the file was cut after it was written; make or copy it again",
        )

    def _unreadable(self, exc: OSError) -> TransportError:
        return TransportError(self.name, f"the disk cannot read it: {exc.strerror}")

    def close(self) -> None:
        """Close now; otherwise done when nobody holds the file any more."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def __del__(self) -> None:
        self.close()


class FilePool:
    """The files in use, at most `limit` of them held open. Safe to share between threads."""

    def __init__(self, limit: int = OPEN_FILES) -> None:
        self.limit = limit
        self._files: OrderedDict[Path, LocalFile] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path) -> LocalFile:
        """The open file at `path`, opened now where it was not. Raises ShardError."""
        with self._lock:
            file = self._files.get(path)
            if file is None:
                file = self._files[path] = LocalFile(path)
                if len(self._files) > self.limit:
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(path)
            return file
