"""Complete or absent: how files and folders get their final names.

A file is written under a temporary name beside its final one, synced, renamed, and its folder
synced. Temporaries begin with a dot and end in `.tmp`; only the holder of a `Lock` may remove
somebody's left-over temporaries.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ocrdata.errors import DiskError, UsageError

TEMPORARY_SUFFIX = ".tmp"
_LOCK_SUFFIX = ".lock"


def temporary_name(path: Path) -> Path:
    """The name `path` is written under until it is complete."""
    return path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")


def fsync_folder(path: Path) -> None:
    """Make renames inside a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(temporary: Path, final: Path) -> None:
    """Give a complete, synced file or folder its final name, durably. A refusal is a
    `DiskError`."""
    with explain_disk(final):
        os.rename(temporary, final)
        fsync_folder(final.parent)


def discard(path: Path) -> None:
    """Remove a file that nobody needs; where that is refused it stays, and what is already being
    reported is not hidden by it."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Write `path` whole or not at all.

    Yields a binary file. On a normal end it is synced and renamed; on an exception it is removed.
    """
    temporary = temporary_name(path)
    with explain_disk(path), open(temporary, "wb") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            discard(temporary)
            raise
    with explain_disk(path):
        try:
            publish(temporary, path)
        except BaseException:
            discard(temporary)
            raise


def write_json(path: Path, value: object) -> None:
    """Write `value` as readable JSON with sorted keys, atomically."""
    text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False)
    with atomic_file(path) as file:
        file.write(text.encode() + b"\n")


_DISK_REASONS = {
    errno.ENOSPC: "no space left on the disk; free some, or choose another folder, and run again",
    errno.EDQUOT: "the disk quota is used up; free some, or choose another folder, and run again",
    errno.EFBIG: "the file would pass the size limit set for this process or file system",
    errno.EACCES: "no permission; get the right to it, or choose another place",
    errno.EPERM: "no permission; get the right to it, or choose another place",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EISDIR: "a folder stands where a file is to be written",
    errno.ENAMETOOLONG: "the name is too long for this file system",
}


@contextmanager
def explain_disk(path: Path) -> Iterator[None]:
    """Turn the disk's refusals below into a `DiskError` that names `path` and the remedy."""
    try:
        yield
    except OSError as exc:
        reason = _DISK_REASONS.get(exc.errno or 0)
        if reason is None:
            raise
        raise DiskError(f"{path}: {reason}") from exc


def make_folder(path: Path) -> Path:
    """Create a folder with its parents, durably; a refusal is a `DiskError`."""
    with explain_disk(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as exc:
            raise DiskError(f"{path}: a file stands where a folder is needed") from exc
        except FileNotFoundError as exc:  # of a file system that takes no new folders, as /proc
            raise DiskError(f"{path}: no folder can be made there; choose another") from exc
        for folder in missing:
            # A parent that may be written to and not be read cannot be synced.
            with suppress(PermissionError):
                fsync_folder(folder.parent)
    return path


def free_bytes(path: Path) -> int:
    """Free bytes on the disk that holds `path`, or would hold it."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Make `path` in here, one process at a time; others wait, and then find it made.

    The lock lies beside `path` and is freed by the kernel however its holder dies. Raises
    DiskError where none can be written.
    """
    lock = path.with_name(f".{path.name}{_LOCK_SUFFIX}")
    while True:
        with explain_disk(lock):
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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
    lock = path.with_name(f".{path.name}{_LOCK_SUFFIX}")
    if os.path.exists(lock):  # False, too, for a name that is too long
        with suppress(UsageError, DiskError), Lock(lock, str(path)):
            discard(temporary_name(path))


def _stands_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


class Lock:
    """An advisory lock on an output, freed by the kernel however its holder dies.

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
        with explain_disk(self.path):
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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
