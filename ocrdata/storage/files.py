"""Atomic writing of files and folders, safe opening, and errors of the disk in plain words.

A file is written under a temporary name in the same folder, synced and renamed, and the folder is
synced: it is complete or absent. Temporary names begin with a dot and end in `.tmp`; only the
holder of a lock (`ocrdata.storage.locks`) may remove those that another process left. Whatever
else exists under a file's name is not trusted: opening never blocks on a pipe, and writing never
follows a symbolic link.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ocrdata.errors import DiskError, TransportError

TEMPORARY_SUFFIX = ".tmp"


def temporary_name(path: Path) -> Path:
    """The name of `path` while it is being written."""
    return path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")


def fsync_folder(path: Path) -> None:
    """Make renames inside a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(temporary: Path, final: Path) -> None:
    """Rename a complete, synced file or folder to its final name, durably. Raises DiskError."""
    with explain_disk(final):
        os.rename(temporary, final)
        fsync_folder(final.parent)


def discard(path: Path) -> None:
    """Delete a file if possible. Never raises, so that it cannot hide an error being handled."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def open_regular(path: str | Path, name: str = "") -> int:
    """Open a regular file for reading; returns its handle. Raises OSError, and TransportError
    naming `name` (default: the path) for anything else, such as a pipe."""
    return open_with_status(path, name)[0]


def open_with_status(path: str | Path, name: str = "") -> tuple[int, os.stat_result]:
    """Like `open_regular`, with the status of the file."""
    # Without O_NONBLOCK, opening a pipe blocks until another process opens it for writing.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise TransportError(name or str(path), "not a regular file")
    return handle, status


def read_file(path: Path) -> bytes:
    """All bytes of a regular file. Raises like `open_regular`."""
    with open(open_regular(path), "rb") as file:
        return file.read()


def create_file(path: Path, mode: int = 0o666) -> int:
    """Create a file for writing, replacing what exists; returns its handle. Raises OSError.

    Symbolic links are not followed: anyone who may write to the folder could have us overwrite a
    file elsewhere.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, mode)
    except FileExistsError:
        os.unlink(path)
    return os.open(path, flags, mode)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Write `path` completely or not at all. Raises DiskError.

    Yields a binary file. At the end of the block it is synced and renamed; on an exception it is
    deleted.
    """
    temporary = temporary_name(path)
    with explain_disk(path), open(create_file(temporary), "wb") as file:
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


def replace_file(path: Path, data: bytes) -> None:
    """Write a file of a cache: processes and threads that write it at once do not disturb each
    other, and readers see all of it or nothing. It is not synced, so a power cut may tear it: its
    readers must verify it. Raises OSError."""
    unique = f"{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{path.name}.{unique}{TEMPORARY_SUFFIX}")
    try:
        with open(create_file(temporary), "wb") as file:
            file.write(data)
        os.rename(temporary, path)
    except BaseException:
        discard(temporary)
        raise


def write_json(path: Path, value: object) -> None:
    """Write `value` as `readable_json`, atomically."""
    data = readable_json(value)
    with atomic_file(path) as file:
        file.write(data)


def readable_json(value: object) -> bytes:
    """JSON with sorted keys and a line for each value."""
    text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False)
    return text.encode() + b"\n"


_DISK_REASONS = {
    errno.ENOSPC: "no space left on the disk; free some space or choose another folder, then rerun",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder, then rerun",
    errno.EFBIG: "the file would exceed the size limit of this process or file system",
    errno.EACCES: "no permission; change the permissions or choose another place",
    errno.EPERM: "no permission; change the permissions or choose another place",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EISDIR: "exists but is a folder, not a file",
    errno.ELOOP: "is a symbolic link or part of a loop of links; links are not followed here, so "
    "remove it",
    errno.ENAMETOOLONG: "the name is too long for this file system",
}


def disk_error(path: str | Path, exc: OSError) -> DiskError | None:
    """The error that names `path`, the reason and the remedy; None if this is no refusal of the
    disk."""
    reason = _DISK_REASONS.get(exc.errno or 0)
    return None if reason is None else DiskError(f"{path}: {reason}")


@contextmanager
def explain_disk(path: Path) -> Iterator[None]:
    """Turn errors of the disk inside the block into a `DiskError` naming `path` and the remedy."""
    try:
        yield
    except OSError as exc:
        error = disk_error(path, exc)
        if error is None:
            raise
        raise error from exc


def make_folder(path: Path) -> Path:
    """Create a folder and its parents, durably. Raises DiskError."""
    with explain_disk(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as exc:
            raise DiskError(f"{path}: exists but is a file, not a folder") from exc
        except FileNotFoundError as exc:  # a file system that creates no folders, as /proc
            raise DiskError(f"{path}: cannot create a folder there; choose another place") from exc
        for folder in missing:
            # A parent that may be written but not read cannot be synced.
            with suppress(PermissionError):
                fsync_folder(folder.parent)
    return path


def free_bytes(path: Path) -> int:
    """Free bytes on the disk that holds `path`, or will hold it once it exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def can_be_a_path(text: str) -> bool:
    """False for text that cannot be a file name: with a NUL, or a surrogate that encodes no
    byte."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def exists(text: str) -> bool:
    """Whether a file or folder of this name exists; False also for impossible names."""
    return os.path.exists(text)


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether a regular file of this name exists; False also for impossible names."""
    return os.path.isfile(path)
