"""A bounded cache on disk for what is read from afar: ranges of objects, and whole small files.

    FOLDER/block-cache.lock             bytes of the disk in use; the lock of all that changes them
    FOLDER/KEY-08-ZONE/START-STOP       an entry: bytes [START, STOP) of KEY, and their xxh3_128
    FOLDER/KEY-08-ZONE/.START-STOP.tmp  an entry while it is written, locked by its writer

KEY identifies an object and its version. ZONE is START in units of 8 MiB, so that few names are
looked at; entries larger than that are in KEY-64-ZONE, in units of 64 MiB. Numbers are hexadecimal.
The modification time of an entry is when it will be needed next, its access time when it was used
last: all that is known of it is in the folder. So there is nothing to repair: processes share the
folder, any of them may be killed, and entries may be deleted behind their back.

The bytes of an entry are reserved, under the lock, before it is written, so the folder never takes
more than the limit, everything counted; those of a killed writer count until the next look at the
whole folder, which removes what it left. The lock is the kernel's (`flock`): the folder must be on
a local disk. Files of other names are not touched and not counted.
"""

from __future__ import annotations

import fcntl
import heapq
import logging
import os
import re
import stat
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from xxhash import xxh3_64_intdigest, xxh3_128

from ocrdata.errors import DiskError
from ocrdata.storage.files import disk_error, make_folder
from ocrdata.storage.sealed import digest_of

LARGEST_ENTRY = 64 << 20
"""Bytes of the largest entry: no fetch is larger."""

ZONES = (8 << 20, LARGEST_ENTRY)
"""Bytes of an object whose entries share a folder, by the largest size of these. Half a microsecond
a name: a lookup takes 20 us among blocks of 640 KiB, 60 among samples of 40 kB."""

PASSED = 600
"""Seconds after which nobody waits any more for an entry that was to be needed: the run is dead, or
has passed it."""

BLOCK = 4096
"""Bytes of a disk's block: a file takes whole ones, a folder at least one."""

_NAMING = 512
"""Bytes that the name and the inode of a file take."""

_SPARE = 32
"""Making room looks at the whole folder, at 3 us an entry. So 1/32 of the limit is freed beyond
what is needed: an entry that is written pays for a look at 32."""

_FARTHEST = 10 * 365 * 86_400
"""Seconds ahead, at most, that an entry is needed: no file system has all dates."""

_VERIFIED = 1 << 16
"""Entries that a process remembers to have verified, about 150 bytes each."""

_KEY = re.compile(r"[0-9a-f]{8,64}")
_ZONE = re.compile(r"[0-9a-f]{8,64}-(?:08|64)-[0-9a-f]{8}")
_NAME = re.compile(r"([0-9a-f]{12})-([0-9a-f]{12})")
_WRITING = re.compile(r"\.([0-9a-f]{12})-([0-9a-f]{12})\.tmp")
_END = 1 << 48
_DIGEST = 16
_ACCOUNT = struct.Struct("=qQ")
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

_log = logging.getLogger(__name__)


class CacheStats(NamedTuple):
    """What one process did with a cache: lookups that found an entry and that found none, bytes
    read and written, entries evicted, entries found damaged."""

    hits: int = 0
    misses: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    evictions: int = 0
    damaged: int = 0


class _Place(NamedTuple):
    """Where an entry is: its folder, and which bytes of the object it holds."""

    folder: str
    start: int
    stop: int

    @property
    def name(self) -> str:
        return f"{self.start:012x}-{self.stop:012x}"

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.name}"

    @property
    def writing(self) -> str:
        """Its path while it is written."""
        return f"{self.folder}/.{self.name}.tmp"

    @property
    def cost(self) -> int:
        """Bytes of the disk it takes."""
        return -(-(self.stop - self.start + _DIGEST) // BLOCK) * BLOCK + _NAMING

    def digest(self, data: bytes | memoryview) -> bytes:
        """What its file ends in. The names are part of it: a file that was moved is damaged."""
        hasher = xxh3_128(f"{os.path.basename(self.folder)}/{self.name}".encode())
        hasher.update(data)
        return hasher.digest()


@dataclass
class _Account:
    """Bytes of the disk in use. The holder of the lock changes it."""

    used: int


class BlockCache:
    """Keeps ranges of objects, and whole small files, in a folder that takes at most `limit` bytes
    of the disk (None: any number). Safe to share between threads.

    Several processes may use a folder with different limits: each holds the folder to its own
    whenever it opens it or writes. Raises DiskError if the folder cannot be used.
    """

    def __init__(self, folder: Path, limit: int | None) -> None:
        self.folder, self.limit = os.path.abspath(make_folder(folder)), limit
        self._lock_file = f"{self.folder}/block-cache.lock"
        self._verified: set[str] = set()
        self._stats, self._stats_lock = CacheStats(), threading.Lock()
        self._warned = False
        try:
            with self._account() as account:
                self._look(account, 0)
                self._make_room(account, 0)
        except OSError as exc:
            raise disk_error(folder, exc) or DiskError(
                f"{folder}: cannot be used as a cache: {exc.strerror}; choose a folder on a local "
                "disk"
            ) from exc

    def __reduce__(self) -> tuple[object, ...]:
        """For worker processes, which share the folder and its limit."""
        return BlockCache, (Path(self.folder), self.limit)

    @property
    def stats(self) -> CacheStats:
        """What this process has done so far."""
        return self._stats

    def get(self, key: str, start: int, stop: int) -> bytes | None:
        """Bytes [start, stop) of an object, from an entry that contains them. None if there is
        none, or only a damaged one, which is deleted.

        An entry is verified whenever it is read whole, as it is at its first use in a process.
        """
        _check(key, start, stop)
        for place in self._containing(key, start, stop):
            data = self._read(place, start, stop)
            if data is not None:
                return data
        self._count(CacheStats(misses=1))
        return None

    def put(self, key: str, start: int, data: bytes | memoryview, *, needed_in: float = 0) -> bool:
        """Keep the bytes of an object from `start` on, to be needed next in `needed_in` seconds.
        True if they are in the cache now.

        False if they do not fit, as more than the limit or than 64 MiB; while somebody else is
        writing them; and if the disk refuses them, which is a warning once.
        """
        _check(key, start, start + len(data))
        return self._put(key, start, data, _time_in(needed_in))

    def needed(self, key: str, start: int, in_seconds: float) -> None:
        """Note when the entries that contain byte `start` of an object will be needed next."""
        _check(key, start, start + 1)
        for place in self._containing(key, start, start + 1):
            _set_needed(place, _time_in(in_seconds))

    def discard(self, key: str, start: int, stop: int) -> None:
        """Delete every entry that holds any of the bytes [start, stop), as some are wrong."""
        _check(key, start, stop)
        first, last = f"{start:012x}", f"{stop:012x}"
        for size in ZONES:
            for zone in range(max(start // size - 1, 0), (stop - 1) // size + 1):
                folder = self._folder(key, zone, size)
                names = [one for one in _names(folder) if one[:12] < last and one[13:] > first]
                self._delete(_places(folder, names))

    def put_file(self, name: str, data: bytes) -> bool:
        """Keep a whole file, in place of what is kept under this name. Returns like `put`.

        Files are evicted like other entries; they are needed when they were used last.
        """
        self._delete(self._of_file(name))
        return self._put(digest_of(name.encode()), 0, data, _time_in(0))

    def get_file(self, name: str) -> bytes | None:
        """A whole file; None if it is not kept, or damaged, and then deleted."""
        for place in self._of_file(name):
            data = self._read(place, place.start, place.stop)
            if data is not None:
                _set_needed(place, _time_in(0))
                return data
        self._count(CacheStats(misses=1))
        return None

    def _folder(self, key: str, zone: int, size: int) -> str:
        return f"{self.folder}/{key}-{size >> 20:02d}-{zone:08x}"

    def _of_file(self, name: str) -> list[_Place]:
        """The entry of a whole file, if it is kept."""
        folders = [self._folder(digest_of(name.encode()), 0, size) for size in ZONES]
        return [place for folder in folders for place in _places(folder, _names(folder))]

    def _containing(self, key: str, start: int, stop: int) -> Iterator[_Place]:
        """The entries that contain bytes [start, stop). They may begin in the zone before."""
        first, last = f"{start:012x}", f"{stop:012x}"
        for size in ZONES:
            zone = start // size
            for folder in [self._folder(key, one, size) for one in (zone, zone - 1) if one >= 0]:
                names = [one for one in _names(folder) if one[:12] <= first and one[13:] >= last]
                yield from sorted(_places(folder, names))

    def _read(self, place: _Place, start: int, stop: int) -> bytes | None:
        """Bytes [start, stop) of an entry, which is used now; None if it is missing or damaged."""
        try:
            handle = os.open(place.path, _READ)
        except OSError:  # evicted in the meantime, or not ours to read
            return None
        try:
            data = self._intact(handle, place, start, stop)
            if data is not None:
                with suppress(OSError):  # a file of another user, or a read-only disk
                    os.utime(handle, ns=(time.time_ns(), os.fstat(handle).st_mtime_ns))
        except OSError as exc:
            _log.warning("%s: cannot be read from disk: %s", place.path, exc.strerror)
            data = None
        finally:
            os.close(handle)
        if data is None:
            self._count(CacheStats(damaged=1))
            self._delete([place])
        else:
            self._count(CacheStats(hits=1, bytes_read=len(data)))
        return data

    def _intact(self, handle: int, place: _Place, start: int, stop: int) -> bytes | None:
        """Bytes [start, stop) of an open entry; None if it is damaged. Raises OSError."""
        size, wanted, at = place.stop - place.start, stop - start, start - place.start
        if wanted < size and place.path in self._verified:
            data = os.pread(handle, wanted, at)
            return data if len(data) == wanted else None
        data = os.pread(handle, size, 0)
        if os.pread(handle, _DIGEST + 1, size) != place.digest(data):
            return None
        if len(self._verified) == _VERIFIED:
            self._verified.clear()
        self._verified.add(place.path)
        return data if wanted == size else data[at : at + wanted]

    def _put(self, key: str, start: int, data: bytes | memoryview, needed: int) -> bool:
        if len(data) > LARGEST_ENTRY:
            return False
        size = next(size for size in ZONES if len(data) <= size)
        place = _Place(self._folder(key, start // size, size), start, start + len(data))
        if not self._fits(2 * BLOCK + place.cost):
            return False
        try:
            with self._account() as account:
                if _set_needed(place, needed):
                    return True
                if _is_written(place.writing) or not self._make_room(account, BLOCK + place.cost):
                    return False
                handle = _create(account, place)
            self._write(handle, place, data, needed)
        except OSError as exc:
            if not self._warned:
                self._warned = True
                reason = disk_error(self.folder, exc) or f"{self.folder}: {exc.strerror}"
                _log.warning("what is read cannot be kept in the cache: %s", reason)
            return False
        self._count(CacheStats(bytes_written=len(data)))
        return True

    def _write(self, handle: int, place: _Place, data: bytes | memoryview, needed: int) -> None:
        """Write an entry for which there is room. Raises OSError; then nothing is left of it."""
        try:
            parts = [memoryview(data), memoryview(place.digest(data))]
            while parts:
                count = os.writev(handle, parts)
                while parts and count >= len(parts[0]):
                    count -= len(parts.pop(0))
                if parts:
                    parts[0] = parts[0][count:]
            os.utime(handle, ns=(time.time_ns(), needed))
            with self._account():
                os.rename(place.writing, place.path)
        except BaseException:
            with suppress(OSError), self._account() as account:
                os.unlink(place.writing)
                account.used -= place.cost
            raise
        finally:
            os.close(handle)

    def _fits(self, used: int) -> bool:
        return self.limit is None or used <= self.limit

    def _make_room(self, account: _Account, size: int) -> bool:
        """Evict until `size` bytes more fit. False if that is impossible: what others are writing
        stays."""
        if self.limit is None or self._fits(account.used + size):
            return True
        target = self.limit - size - self.limit // _SPARE
        candidates = self._look(account, account.used - target)
        if self._fits(account.used + size):  # others have deleted entries
            return True
        for place in candidates:
            if account.used <= target:
                break
            if self._remove(account, place):
                self._count(CacheStats(evictions=1))
        return self._fits(account.used + size)

    def _look(self, account: _Account, wanted: int) -> list[_Place]:
        """Look at all entries: count the bytes in use, and return those entries that go first, in
        this order, `wanted` bytes of them. Removes empty folders, and what dead writers left."""
        account.used = BLOCK
        first = _First(wanted)
        for folder in self._zones():
            account.used += BLOCK
            with os.scandir(folder) as files:
                for file in files:
                    if name := _NAME.fullmatch(file.name):
                        place = _Place(folder, int(name[1], 16), int(name[2], 16))
                        with suppress(FileNotFoundError):  # deleted behind our back
                            status = file.stat(follow_symlinks=False)
                            if stat.S_ISREG(status.st_mode):
                                account.used += place.cost
                                first.add(place, status)
                    elif (name := _WRITING.fullmatch(file.name)) and _is_written(file.path):
                        account.used += _Place(folder, int(name[1], 16), int(name[2], 16)).cost
            _remove_if_empty(account, folder)
        return first.in_order()

    def _zones(self) -> list[str]:
        with os.scandir(self.folder) as found:
            return [
                one.path
                for one in found
                if _ZONE.fullmatch(one.name) and one.is_dir(follow_symlinks=False)
            ]

    def _delete(self, places: Iterable[_Place]) -> None:
        """Delete entries. One that the disk refuses to delete stays."""
        with suppress(OSError), self._account() as account:
            for place in places:
                self._remove(account, place)

    def _remove(self, account: _Account, place: _Place) -> bool:
        """Delete an entry, and its folder if that is empty then. False if the disk refuses, or it
        was deleted behind our back."""
        self._verified.discard(place.path)
        try:
            os.unlink(place.path)
        except OSError:
            return False
        account.used -= place.cost
        _remove_if_empty(account, place.folder)
        return True

    @contextmanager
    def _account(self) -> Iterator[_Account]:
        """Hold the lock, with the bytes in use; what they are changed to is stored. Raises
        OSError.

        Nothing is written to an entry that was not counted before: its file is created, empty,
        under the lock, and filled after it.
        """
        handle = self._locked()
        try:
            stored = _Account(_unpack(os.pread(handle, _ACCOUNT.size, 0)))
            if stored.used < 0:
                self._look(stored, 0)
            account = _Account(stored.used)
            try:
                yield account
            finally:
                try:
                    os.pwrite(handle, _pack(account.used), 0)
                except OSError:  # a full disk: the next one counts anew
                    os.ftruncate(handle, 0)
        finally:
            os.close(handle)  # and free the lock

    def _locked(self) -> int:
        """The lock file, open and locked; a new one, if it was deleted behind our back."""
        while True:
            try:
                handle = os.open(self._lock_file, _LOCK, 0o666)
            except FileNotFoundError:
                os.makedirs(self.folder, exist_ok=True)
                handle = os.open(self._lock_file, _LOCK, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(handle), os.stat(self._lock_file)):
                        return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def _count(self, more: CacheStats) -> None:
        with self._stats_lock:
            self._stats = CacheStats(*map(sum, zip(self._stats, more, strict=True)))


class _First:
    """Of the entries added, those that are evicted first, `wanted` bytes of them; memory for no
    more than these.

    First go the entries whose time has passed for long, the oldest first; then those needed last;
    of several needed at once, the one that was used least recently.
    """

    def __init__(self, wanted: int) -> None:
        self._wanted, self._total = wanted, 0
        self._passed = time.time_ns() - PASSED * 10**9
        # The one that is evicted last is on top: ranks are negative.
        self._heap: list[tuple[tuple[int, int, int], _Place]] = []

    def add(self, place: _Place, status: os.stat_result) -> None:
        needed, used = status.st_mtime_ns, status.st_atime_ns
        rank = (0, -needed, -used) if needed < self._passed else (-1, needed, -used)
        if self._total >= self._wanted and (not self._heap or rank < self._heap[0][0]):
            return
        heapq.heappush(self._heap, (rank, place))
        self._total += place.cost
        while self._heap and self._total - self._heap[0][1].cost >= self._wanted:
            self._total -= heapq.heappop(self._heap)[1].cost

    def in_order(self) -> list[_Place]:
        return [place for _, place in sorted(self._heap, reverse=True)]


def _check(key: str, start: int, stop: int) -> None:
    if not (_KEY.fullmatch(key) and 0 <= start < stop < _END):
        raise ValueError(f"no range of an object: {key!r}, bytes {start} to {stop}")


def _time_in(seconds: float) -> int:
    """The time in so many seconds, in ns since 1970."""
    return time.time_ns() + int(min(max(0.0, seconds), _FARTHEST) * 10**9)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # no entry of this object, or not ours to read
        return []


def _places(folder: str, names: Iterable[str]) -> list[_Place]:
    found = map(_NAME.fullmatch, names)
    return [_Place(folder, int(one[1], 16), int(one[2], 16)) for one in found if one]


def _set_needed(place: _Place, needed: int) -> bool:
    """Note when an entry is needed next; False if there is none."""
    try:
        used = os.stat(place.path, follow_symlinks=False).st_atime_ns
    except OSError:
        return False
    with suppress(OSError):  # evicted in the meantime, or a file of another user
        os.utime(place.path, ns=(used, needed), follow_symlinks=False)
    return True


def _create(account: _Account, place: _Place) -> int:
    """Create the file of an entry and count it; returns its handle, locked. Raises OSError."""
    with suppress(FileExistsError):
        os.mkdir(place.folder)
        account.used += BLOCK
    handle = os.open(place.writing, _CREATE, 0o666)
    account.used += place.cost
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # at once: others look for it under the cache's lock
    except BaseException:
        os.close(handle)
        raise
    return handle


def _remove_if_empty(account: _Account, folder: str) -> None:
    # Looking first takes a tenth of a refused attempt.
    if not _names(folder):
        with suppress(OSError):  # not ours to read, or to remove
            os.rmdir(folder)
            account.used -= BLOCK


def _is_written(path: str) -> bool:
    """Whether a file is being written; what a dead writer left is removed."""
    try:
        handle = os.open(path, _READ)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _pack(used: int) -> bytes:
    return _ACCOUNT.pack(used, xxh3_64_intdigest(b"%d" % used))


def _unpack(data: bytes) -> int:
    """The bytes in use; less than 0 if the file is new or damaged, or entries were discarded that
    others had put there."""
    used: int = _ACCOUNT.unpack(data)[0] if len(data) == _ACCOUNT.size else -1
    return used if data == _pack(used) else -1
