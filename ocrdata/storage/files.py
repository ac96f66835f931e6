"""Complete or absent: how files and folders get their final names, and how files are opened.

A file is written under a temporary name beside its final one, synced, renamed, and its folder
synced. Temporaries begin with a dot and end in `.tmp`; only the holder of a lock
(`ocrdata.storage.locks`) may remove somebody's left-over temporaries. What else lies at a file's
name is not trusted: no pipe is waited for, and nothing is written through a link.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ocrdata.errors import DiskError, TransportError

TEMPORARY_SUFFIX = ".tmp"


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


def open_regular(path: Path, name: str = "") -> int:
    """The handle of a regular file, open for reading. Raises OSError, and TransportError of `name`
    for anything else: a pipe is not waited for."""
    # Without O_NONBLOCK the opening of a pipe waits for one who writes to it.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise TransportError(name or str(path), "not a regular file")
    return handle


def read_file(path: Path) -> bytes:
    """All bytes of a regular file. Raises as `open_regular`."""
    with open(open_regular(path), "rb") as file:
        return file.read()


def create_file(path: Path, mode: int = 0o666) -> int:
    """The handle of a new file, open for writing; what lay at its name is removed. Raises OSError.

    Never through a link: who may write to a folder could have somebody else's file emptied.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, mode)
    except FileExistsError:
        os.unlink(path)
    return os.open(path, flags, mode)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Write `path` whole or not at all.

    Yields a binary file. On a normal end it is synced and renamed; on an exception it is removed.
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
    errno.ELOOP: "a symbolic link stands where a file is to be written, or links lead in a circle; "
    "remove it",
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


def can_be_a_path(text: str) -> bool:
    """False for what the system has no name for: a NUL, or half a surrogate pair that stands for
    no byte."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def exists(text: str) -> bool:
    """Whether anything has this name; False also for a name that none can have."""
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # a name that is too long, or that no file can have
        return False


def is_file(path: Path) -> bool:
    """Whether a file is there; False also for a name that is too long, or that none can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
