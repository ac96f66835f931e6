"""One writer at a time: lock files beside outputs, which the kernel frees when their holder dies.

The locking is `filelock`'s. Added here: the lock file is removed on release, while still locked
(a process that opened it before sees that it has lost its name and tries again), and a refusal by
the disk is a `DiskError`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import Timeout, UnixFileLock

from ocrdata.errors import DiskError, UsageError
from ocrdata.storage.files import discard, explain_disk, temporary_name

_SUFFIX = ".lock"
_FOREVER = -1.0

_AT_ONCE = 0.1
"""Seconds `Lock` keeps trying: a single attempt could meet a file that is just being removed."""

_POLL = 0.02
"""Seconds between two attempts to take a lock."""


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold the lock beside `path` while creating it; other processes and threads wait.

    Whoever waited finds the file complete, so check for it inside. Raises DiskError where no lock
    file can be created.
    """
    lock = _acquire(_lock_beside(path), _FOREVER)
    try:
        yield
    finally:
        _release(lock)


def remove_abandoned(path: Path) -> None:
    """Remove what a process killed inside `only_one(path)` left: its lock file and the temporary
    file. Does nothing while a process holds the lock."""
    lock = _lock_beside(path)
    if os.path.exists(lock):  # False, too, for a name that is too long
        with suppress(UsageError, DiskError), Lock(lock, str(path)):
            discard(temporary_name(path))


class Lock:
    """A lock on an output, without waiting: UsageError when another process or thread holds it.

    `what` names the output in that message. Raises DiskError where no lock file can be created.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path, self.what = path, what
        self._lock: UnixFileLock | None = None

    def __enter__(self) -> Lock:
        if self._lock is None:
            try:
                self._lock = _acquire(self.path, _AT_ONCE)
            except Timeout as exc:
                raise UsageError(
                    f"{self.what} is being written by another process (lock {self.path}); "
                    "wait for it, or choose another name"
                ) from exc
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            _release(self._lock)
            self._lock = None


def _lock_beside(path: Path) -> Path:
    return path.with_name(f".{path.name}{_SUFFIX}")


def _acquire(path: Path, timeout: float) -> UnixFileLock:
    """The lock, held. Raises Timeout after `timeout` seconds, and DiskError."""
    # Not thread_local: it may be released in another thread than the one that took it.
    lock = UnixFileLock(
        path, timeout, thread_local=False, poll_interval=_POLL, fallback_to_soft=False
    )
    try:
        with explain_disk(path):
            # filelock would create a missing folder, and retry forever where the file system
            # creates no files (as /proc). O_NOFOLLOW: a link could create a file anywhere.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(path, flags, 0o644))
            lock.acquire()
    except FileNotFoundError as exc:
        raise DiskError(f"{path.parent}: cannot create a file there; choose another place") from exc
    return lock


def _release(lock: UnixFileLock) -> None:
    if lock.is_locked:  # False in a forked child, which must not remove its parent's lock file
        discard(Path(lock.lock_file))  # still locked: the next to come creates a new file
        lock.release()
