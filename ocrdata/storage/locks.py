"""One writer at a time: advisory locks on outputs, freed by the kernel however their holder
dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ocrdata.errors import DiskError, UsageError
from ocrdata.storage.files import discard, explain_disk, temporary_name

_SUFFIX = ".lock"
# Never through a link, which could make a file anywhere.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Make `path` in here, one process at a time; others wait, and then find it made.

    The lock lies beside `path` and is freed by the kernel however its holder dies. Raises
    DiskError where none can be written.
    """
    lock = path.with_name(f".{path.name}{_SUFFIX}")
    while True:
        handle = _open(lock)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _stands_at(handle, lock):
                try:
                    yield
                finally:
                    discard(lock)
                return
        finally:
            os.close(handle)


def remove_abandoned(path: Path) -> None:
    """Remove what a killed process left that was making `path` in `only_one`: its lock, and the
    file it was writing. Nothing is touched while a process is at it."""
    lock = path.with_name(f".{path.name}{_SUFFIX}")
    if os.path.exists(lock):  # False, too, for a name that is too long
        with suppress(UsageError, DiskError), Lock(lock, str(path)):
            discard(temporary_name(path))


def _open(lock: Path) -> int:
    try:
        with explain_disk(lock):
            return os.open(lock, _FLAGS, 0o644)
    except FileNotFoundError as exc:  # of a file system that takes no new files, as /proc
        raise DiskError(f"{lock.parent}: no file can be made there; choose another place") from exc


def _stands_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


class Lock:
    """A lock on an output, taken at once or not at all.

    Raises UsageError when another process holds it.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path, self.what = path, what
        self._handle: int | None = None

    def __enter__(self) -> Lock:
        while self._handle is None:
            self._handle = self._try()
        return self

    def _try(self) -> int | None:
        """The locked handle, or None where the lock file was removed by its holder meanwhile."""
        handle = _open(self.path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(handle)
            raise UsageError(
                f"{self.what} is being written by another process (lock {self.path}); "
                "wait for it, or choose another name"
            ) from exc
        if _stands_at(handle, self.path):
            return handle
        os.close(handle)
        return None

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            # Removed while still held: who opens it next makes a new file and a new lock.
            discard(self.path)
            os.close(self._handle)
            self._handle = None
