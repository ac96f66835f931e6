"""The bounded cache, compared with a dict under the same rules; damage, other processes, full
disks."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ocrdata.errors import DiskError
from ocrdata.storage import block_cache
from ocrdata.storage.block_cache import LARGEST_ENTRY, PASSED, ZONES, BlockCache
from ocrdata.storage.sealed import digest_of
from tests.support.cachefiles import (
    KEYS,
    content,
    disk_bytes,
    entry_files,
    leftovers,
    put_in_steps,
)
from tests.support.refusals import small_disk

LIMIT = 60_000
A, B = KEYS[:2]


@dataclass
class Known:
    """What the dict knows of an entry; times in seconds."""

    data: bytes
    needed: int
    used: int


Name = tuple[str, int, int]


def cost(name: Name) -> int:
    """Whole blocks for the bytes and their digest of 16, and 512 bytes for name and inode."""
    return -(-(name[2] - name[1] + 16) // 4096) * 4096 + 512


class Model:
    """A dict of entries under the rules of the cache."""

    def __init__(self) -> None:
        self.entries: dict[Name, Known] = {}

    @property
    def used(self) -> int:
        """The lock file, a block for each folder, the entries."""
        folders = {(key, start // ZONES[0]) for key, start, _ in self.entries}
        return 4096 * (1 + len(folders)) + sum(map(cost, self.entries))

    def containing(self, key: str, start: int, stop: int) -> list[Name]:
        """Those that begin in the zone before are last."""
        zone = start // ZONES[0]
        found = [n for n in self.entries if n[0] == key and n[1] <= start and n[2] >= stop]
        return sorted(found, key=lambda n: (n[1] // ZONES[0] != zone, n))

    def make_room(self, size: int, limit: int | None, now: int) -> None:
        if limit is None or self.used + size <= limit:
            return

        def order(name: Name) -> tuple[int, int, int]:
            known = self.entries[name]
            passed = known.needed < now - PASSED
            return (0, known.needed, known.used) if passed else (1, -known.needed, known.used)

        for name in sorted(self.entries, key=order):
            if self.used <= limit - size - limit // 32:
                break
            del self.entries[name]

    def put(self, name: Name, known: Known, limit: int | None) -> bool:
        if limit is not None and 2 * 4096 + cost(name) > limit:
            return False
        if name in self.entries:
            self.entries[name].needed = known.needed
        else:
            self.make_room(4096 + cost(name), limit, known.used)
            self.entries[name] = known
        return True


starts = st.sampled_from([0, 1, 5_000, ZONES[0] - 6_000, ZONES[0], 70 * ZONES[0]])
sizes = st.sampled_from([1, 4_080, 4_081, 9_000, 20_000])
ahead = st.sampled_from([0, 3, 50, 5_000])
limits = st.sampled_from([0, 9_000, 17_000, 40_000, LIMIT, 200_000, None])
keys = st.sampled_from([A, B])
names = st.sampled_from(["x.index.parquet", "y"])


class CacheLikeADict(RuleBasedStateMachine):
    """Two processes' caches on one folder, each with its limit, and a clock of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.now, self.model = 1_800_000_000, Model()
        self.limits: list[int | None] = [None, None]
        self.real_time, block_cache.time = (
            block_cache.time,
            SimpleNamespace(time_ns=lambda: self.now * 10**9),
        )
        self.caches = [BlockCache(self.folder, None) for _ in self.limits]

    def teardown(self) -> None:
        block_cache.time = self.real_time
        shutil.rmtree(self.folder)

    def later(self, seconds: int = 1) -> int:
        self.now += seconds
        return self.now

    @rule(who=st.integers(0, 1), limit=limits)
    def open_with_another_limit(self, who: int, limit: int | None) -> None:
        self.limits[who] = limit
        self.caches[who] = BlockCache(self.folder, limit)
        self.model.make_room(0, limit, self.later(0))

    @rule(seconds=st.sampled_from([10, PASSED, 5_000]))
    def time_passes(self, seconds: int) -> None:
        self.later(seconds)

    @rule(who=st.integers(0, 1), key=keys, start=starts, size=sizes, needed_in=ahead)
    def put(self, who: int, key: str, start: int, size: int, needed_in: int) -> None:
        data, now = content(key, start, size), self.later()
        wanted = self.model.put(
            (key, start, start + size), Known(data, now + needed_in, now), self.limits[who]
        )
        assert self.caches[who].put(key, start, data, needed_in=needed_in) is wanted

    @rule(who=st.integers(0, 1), key=keys, start=starts, size=sizes)
    def get(self, who: int, key: str, start: int, size: int) -> None:
        now, found = self.later(), self.model.containing(key, start, start + size)
        for name in found[:1]:
            self.model.entries[name].used = now
        expected = content(key, start, size) if found else None
        assert self.caches[who].get(key, start, start + size) == expected

    @rule(who=st.integers(0, 1), key=keys, start=starts, seconds=ahead)
    def needed(self, who: int, key: str, start: int, seconds: int) -> None:
        now = self.later()
        for name in self.model.containing(key, start, start + 1):
            self.model.entries[name].needed = now + seconds
        self.caches[who].needed(key, start, seconds)

    @rule(who=st.integers(0, 1), key=keys, start=starts, size=sizes)
    def discard(self, who: int, key: str, start: int, size: int) -> None:
        for name in list(self.model.entries):
            if name[0] == key and name[1] < start + size and start < name[2]:
                del self.model.entries[name]
        self.caches[who].discard(key, start, start + size)

    @rule(who=st.integers(0, 1), name=names, size=sizes | st.just(0))
    def put_file(self, who: int, name: str, size: int) -> None:
        key, data, now = digest_of(name.encode()), content(name, 0, size), self.later()
        self.model.entries = {n: k for n, k in self.model.entries.items() if n[0] != key}
        wanted = self.model.put((key, 0, size), Known(data, now, now), self.limits[who])
        assert self.caches[who].put_file(name, data) is wanted

    @rule(who=st.integers(0, 1), name=names)
    def get_file(self, who: int, name: str) -> None:
        key, now = digest_of(name.encode()), self.later()
        found = [known for n, known in self.model.entries.items() if n[0] == key]
        for known in found:
            known.used = known.needed = now
        expected = found[0].data if found else None
        assert self.caches[who].get_file(name) == expected

    @invariant()
    def the_folder_has_what_the_dict_has(self) -> None:
        assert entry_files(self.folder) == {n: k.data for n, k in self.model.entries.items()}
        assert not leftovers(self.folder)
        with self.caches[0]._account() as account:
            assert account.used == self.model.used
        assert disk_bytes(self.folder) <= self.model.used


CacheLikeADict.TestCase.settings = settings(max_examples=40, stateful_step_count=40)
TestCacheLikeADict = CacheLikeADict.TestCase


def test_what_is_asked_for_may_be_a_part_of_an_entry(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path / "cache", LIMIT)
    start = ZONES[0] - 100  # an entry that goes on in the next zone
    assert cache.put(A, start, content(A, start, 1000))
    for first, last in ((start, start + 1000), (start + 1, start + 2), (start + 500, start + 1000)):
        assert cache.get(A, first, last) == content(A, first, last - first)
    assert cache.get(A, start - 1, start + 1) is None
    assert cache.get(A, start + 999, start + 1001) is None
    assert cache.get(B, start, start + 1000) is None
    assert cache.stats == (3, 3, 1000 + 1 + 500, 1000, 0, 0)


def test_another_process_reads_what_was_kept(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from ocrdata.storage.block_cache import BlockCache\n"
        "from tests.support.cachefiles import KEYS, content\n"
        "cache = BlockCache(Path(sys.argv[1]), int(sys.argv[2]))\n"
        "assert cache.get(KEYS[0], 10, 20) == content(KEYS[0], 10, 10)\n"
        "assert cache.put(KEYS[1], 0, content(KEYS[1], 0, 9000))\n"
    )
    cache = BlockCache(tmp_path, LIMIT)
    cache.put(A, 0, content(A, 0, 9_000))
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(LIMIT)], check=True)
    assert cache.get(B, 1, 2) == content(B, 1, 1)
    assert cache.put(B, 0, content(B, 0, 9_000)), "it is there"
    assert cache.stats.bytes_written == 9_000


def test_only_parts_are_read_of_what_this_process_has_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    BlockCache(tmp_path, None).put(A, 0, content(A, 0, 50_000))
    cache, real, read = BlockCache(tmp_path, None), os.pread, list[int]()

    def pread(handle: int, size: int, at: int) -> bytes:
        read.append(size)
        return real(handle, size, at)

    monkeypatch.setattr(os, "pread", pread)
    assert cache.get(A, 7, 17) == content(A, 7, 10)
    assert read == [50_000, 17]
    read.clear()
    assert cache.get(A, 30_000, 30_005) == content(A, 30_000, 5)
    assert read == [5]
    monkeypatch.setattr(block_cache, "_VERIFIED", 1)
    cache.put(B, 0, content(B, 0, 100))
    assert cache.get(B, 0, 1) == content(B, 0, 1)
    assert len(cache._verified) == 1


def the_file(folder: Path) -> Path:
    (found,) = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return found


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path) -> None:
    cache, data = BlockCache(tmp_path, LIMIT), content(A, 3, 12)
    cache.put(A, 3, data)
    path = the_file(tmp_path)
    whole = path.read_bytes()
    assert len(whole) == 28
    flipped = [
        whole[: at // 8] + bytes([whole[at // 8] ^ 1 << at % 8]) + whole[at // 8 + 1 :]
        for at in range(8 * len(whole))
    ]
    damaged = [*flipped, *(whole[:size] for size in range(len(whole))), whole + b"\0"]
    for number, bad in enumerate(damaged):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bad)
        asked = (3, 15) if number % 2 else (5, 6)
        assert BlockCache(tmp_path, LIMIT).get(A, *asked) is None, number
        assert not path.exists(), number
    assert cache.put(A, 3, data) and cache.get(A, 3, 15) == data


def test_an_entry_cut_after_it_was_verified_is_damaged(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, LIMIT)
    cache.put(A, 0, content(A, 0, 9_000))
    assert cache.get(A, 0, 9) == content(A, 0, 9)
    os.truncate(the_file(tmp_path), 4_000)
    assert cache.get(A, 3_990, 4_005) is None
    assert (cache.stats.damaged, cache.stats.misses) == (1, 1)
    assert cache.put(A, 0, content(A, 0, 9_000))
    assert cache.get(A, 3_990, 4_005) == content(A, 3_990, 15)


def test_an_entry_under_another_name_is_damaged(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, LIMIT)
    cache.put(A, 0, content(A, 0, 100))
    path = the_file(tmp_path)
    path.rename(path.with_name(f"{100:012x}-{200:012x}"))
    assert cache.get(A, 100, 200) is None
    cache.put(A, 0, content(A, 0, 100))
    path.parent.rename(tmp_path / f"{B}-08-00000000")
    assert cache.get(B, 0, 100) is None
    assert cache.stats.damaged == 2


@pytest.mark.parametrize("damage", [b"", bytes(16), b"x" * 16, b"\xff" * 16, b"1" * 7, None])
def test_a_damaged_or_deleted_account_is_counted_anew(tmp_path: Path, damage: bytes | None) -> None:
    cache, lock = BlockCache(tmp_path, LIMIT), tmp_path / "block-cache.lock"
    for number in range(3):
        assert cache.put(A, number * 20_000, content(A, number * 20_000, 16_000))
        if damage is None:
            lock.unlink()
        else:
            lock.write_bytes(damage)
    assert 0 < len(entry_files(tmp_path)) < 3 and disk_bytes(tmp_path) <= LIMIT
    assert cache.get(A, 40_000, 56_000) == content(A, 40_000, 16_000)


def test_entries_and_folders_deleted_behind_its_back(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path / "cache", LIMIT)
    for how in (lambda: the_file(tmp_path).unlink(), lambda: shutil.rmtree(tmp_path / "cache")):
        assert cache.put(A, 0, content(A, 0, 40_000))
        assert cache.get(A, 0, 40_000) == content(A, 0, 40_000)
        how()
        assert cache.get(A, 0, 40_000) is None
        assert cache.get(A, 0, 4) is None
    assert cache.put(A, 0, content(A, 0, 40_000))
    assert cache.get(A, 1, 4) == content(A, 1, 3)
    assert cache.stats.damaged == 0


def test_foreign_files_are_neither_touched_nor_counted(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, LIMIT)
    cache.put(A, 0, content(A, 0, 100))
    zone = the_file(tmp_path).parent
    foreign = [
        tmp_path / "notes.txt", tmp_path / A, tmp_path / "0123-08-00000000", zone / "notes.txt",
        zone / f".{'0' * 12}.tmp", tmp_path / "more" / f"{0:012x}-{9:012x}",
    ]  # fmt: skip
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(100_000))
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / f"{0:012x}-{9:012x}").write_bytes(bytes(100_000))
    (tmp_path / f"{B}-08-00000000").symlink_to(outside)
    small = BlockCache(tmp_path, 26_000)
    assert small.get(A, 0, 100) == content(A, 0, 100)
    assert small.put(A, 100, content(A, 100, 9_000)), "evicts the other"
    assert small.get(A, 0, 100) is None
    assert BlockCache(tmp_path, 0).get(A, 100, 110) is None
    assert all(path.stat().st_size == 100_000 for path in foreign)
    assert (outside / f"{0:012x}-{9:012x}").exists()


@pytest.mark.parametrize("limit", [0, 1, 4_096, 12_799])
def test_a_limit_below_one_entry_keeps_nothing_and_fails_nothing(
    tmp_path: Path, limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    cache = BlockCache(tmp_path, limit)
    assert not cache.put(A, 0, b"x")
    assert not cache.put_file("name", b"x")
    assert cache.get(A, 0, 1) is None and cache.get_file("name") is None
    assert not caplog.records and not entry_files(tmp_path)
    assert BlockCache(tmp_path, 12_800).put(A, 0, b"x")


def test_large_entries(tmp_path: Path) -> None:
    cache, data = BlockCache(tmp_path, None), memoryview(content(A, 0, LARGEST_ENTRY + 1))
    assert not cache.put(A, 0, data), "no fetch is as large"
    assert cache.put(A, 1, data[1:])
    assert cache.put(A, 3 * LARGEST_ENTRY, data[: ZONES[0] + 1])
    for start in (LARGEST_ENTRY, LARGEST_ENTRY - 9, ZONES[0], 1):
        assert cache.get(A, start, start + 1) == content(A, start, 1)
    assert cache.get(A, 3 * LARGEST_ENTRY + ZONES[0], 3 * LARGEST_ENTRY + ZONES[0] + 1)
    cache.discard(A, LARGEST_ENTRY, LARGEST_ENTRY + 1)
    assert [name[1] for name in entry_files(tmp_path)] == [3 * LARGEST_ENTRY]
    assert cache.put_file("x", bytes(data[: ZONES[0] + 1])) and cache.put_file("x", b"x")
    assert cache.get_file("x") == b"x" and len(entry_files(tmp_path)) == 2


def test_invalid_calls(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, None)
    for key, start, stop in (("", 0, 1), ("../abcdef", 0, 1), ("A" * 32, 0, 1), ("f" * 65, 0, 1),
                             (A, -1, 1), (A, 1, 1), (A, 2, 1), (A, 0, 1 << 48)):  # fmt: skip
        with pytest.raises(ValueError, match="bytes"):
            cache.get(key, start, stop)
    with pytest.raises(ValueError, match="bytes 5 to 5"):
        cache.put(A, 5, b"")


@pytest.mark.parametrize("needed_in", [float("inf"), float("nan"), -1e300, 1e300])
def test_any_time_will_do(tmp_path: Path, needed_in: float) -> None:
    cache = BlockCache(tmp_path, None)
    assert cache.put(A, 0, b"data", needed_in=needed_in)
    cache.needed(A, 2, needed_in)
    assert cache.get(A, 0, 4) == b"data"


WRITER = """
import os, sys
from pathlib import Path
from ocrdata.storage.block_cache import BlockCache
from tests.support.cachefiles import KEYS, content

def paused(handle, parts):
    real(handle, [parts[0][:5000]])
    print("writing", flush=True)
    sys.stdin.readline()
    return real(handle, [parts[0][5000:], *parts[1:]]) + 5000

cache = BlockCache(Path(sys.argv[1]), int(sys.argv[2]))
real, os.writev = os.writev, paused
assert cache.put(KEYS[0], 0, content(KEYS[0], 0, 30_000))
"""


@contextmanager
def writing(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, in the middle of writing an entry of 30,000 bytes."""
    words = [sys.executable, "-c", WRITER, str(folder), str(LIMIT)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "writing\n"
        try:
            yield writer
        finally:
            writer.kill()


def test_what_another_process_writes_is_counted_and_stays(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        cache = BlockCache(tmp_path, LIMIT)
        assert cache.get(A, 0, 10) is None
        assert not cache.put(A, 0, content(A, 0, 30_000)), "somebody is writing it"
        assert not cache.put(B, 0, content(B, 0, 30_000)), "no room beside it"
        assert cache.put(B, 0, content(B, 0, 10_000))
        assert writer.communicate("\n") == ("", None) and writer.returncode == 0
    assert cache.get(A, 0, 30_000) == content(A, 0, 30_000)
    assert cache.get(B, 0, 10_000) == content(B, 0, 10_000)


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, LIMIT)
    with writing(tmp_path) as writer:
        assert len(leftovers(tmp_path)) == 1
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert len(leftovers(tmp_path)) == 1
    assert cache.put(B, 0, content(B, 0, 30_000)), "its room is free"
    assert not leftovers(tmp_path)
    with writing(tmp_path) as writer:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert cache.put(A, 0, content(A, 0, 30_000)), "written by nobody"
    with writing(tmp_path / "other") as writer:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    BlockCache(tmp_path / "other", LIMIT)
    assert [path.name for path in (tmp_path / "other").rglob("*")] == ["block-cache.lock"]


def test_a_worker_process_gets_the_same_cache(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, LIMIT)
    cache.put(A, 0, b"data")
    same = pickle.loads(pickle.dumps(cache))
    assert (same.folder, same.limit) == (str(tmp_path), LIMIT)
    assert same.get(A, 1, 3) == b"at"


def test_threads_share_a_cache(tmp_path: Path) -> None:
    cache, most, failed = BlockCache(tmp_path, LIMIT), list[int](), list[BaseException]()

    def use(number: int) -> None:
        try:
            put_in_steps(cache, number, 60)
        except BaseException as exc:
            failed.append(exc)

    threads = [threading.Thread(target=use, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with cache._account():  # so that nothing is moved while it is counted
            most.append(disk_bytes(tmp_path))
    assert not failed and max(most) <= LIMIT and not leftovers(tmp_path)
    assert cache.stats.hits and cache.stats.evictions and not cache.stats.damaged


def test_a_full_disk_is_a_warning_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_disk(tmp_path / "disk", "300k") as disk:
        cache = BlockCache(disk / "cache", None)
        assert cache.put(A, 0, content(A, 0, 100_000))
        (disk / "ballast").write_bytes(bytes(100_000))
        for start in (200_000, 400_000, 200_000):
            assert not cache.put(A, start, content(A, start, 100_000))
        (record,) = caplog.records
        assert record.levelno == logging.WARNING and str(disk) in record.getMessage()
        assert "no space left" in record.getMessage()
        assert cache.get(A, 0, 100_000) == content(A, 0, 100_000)
        assert not leftovers(disk) and len(entry_files(disk / "cache")) == 1
        (disk / "ballast").unlink()
        assert cache.put(A, 200_000, content(A, 200_000, 100_000)), "there is space again"


def test_a_disk_that_is_full_at_opening(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        (disk / "cache").mkdir()
        with suppress_full(), open(disk / "ballast", "wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass
        cache = BlockCache(disk / "cache", LIMIT)
        assert not cache.put(A, 0, b"data") and cache.get(A, 0, 4) is None
        (disk / "ballast").unlink()
        assert cache.put(A, 0, b"data") and cache.get(A, 0, 4) == b"data"


@contextmanager
def suppress_full() -> Iterator[None]:
    with pytest.raises(OSError, match="No space"):
        yield


def test_a_disk_that_becomes_read_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_disk(tmp_path / "disk") as disk:
        cache = BlockCache(disk, LIMIT)
        cache.put(A, 0, content(A, 0, 100))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert not cache.put(A, 200, content(A, 200, 100))
        cache.needed(A, 0, 9)
        cache.discard(A, 0, 1)
        assert cache.get(A, 0, 100) == content(A, 0, 100), "it could not be deleted"
        assert len(caplog.records) == 1 and "read-only" in caplog.text
        with pytest.raises(DiskError, match=f"{disk}: .*read-only"):
            BlockCache(disk, LIMIT)


@contextmanager
def without_root() -> Iterator[Path]:
    """A folder that this process may read but not write."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_no_permission(tmp_path: Path) -> None:
    with without_root() as folder:
        for place in (folder, folder / "cache"):
            with pytest.raises(DiskError, match=rf"{place}.*: no permission"):
                BlockCache(place, LIMIT)


def test_places_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/self")):
        with pytest.raises(DiskError) as caught:
            BlockCache(place, LIMIT)
        assert str(place) in str(caught.value) and "\n" not in str(caught.value)


def test_the_time_of_an_entry_is_when_it_is_needed(tmp_path: Path) -> None:
    cache, before = BlockCache(tmp_path, None), time.time()
    cache.put(A, 0, b"data", needed_in=500)
    assert before + 499 < the_file(tmp_path).stat().st_mtime < time.time() + 501
    cache.get(A, 0, 4)
    assert before + 499 < the_file(tmp_path).stat().st_mtime
    cache.needed(A, 1, 9_000)
    assert before + 8_999 < the_file(tmp_path).stat().st_mtime
    cache.put(A, 0, b"data", needed_in=50)  # it is there
    assert the_file(tmp_path).stat().st_mtime < time.time() + 51


def test_the_account_covers_all_that_is_on_the_disk(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, None)
    for number in range(1, 300):
        assert cache.put(KEYS[number % 3], number * 7_000, content(A, 0, number * 50))
    with cache._account() as account:
        assert account.used - 520 * 300 < disk_bytes(tmp_path) <= account.used
