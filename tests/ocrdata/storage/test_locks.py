import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ocrdata.errors import DiskError, UsageError
from ocrdata.storage.files import temporary_name
from ocrdata.storage.locks import Lock, only_one, remove_abandoned
from tests.support.waiting import until


def test_a_lock_has_one_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    code = (
        "import sys; from pathlib import Path; from ocrdata.storage.locks import Lock\n"
        "with Lock(Path(sys.argv[1]), 'the thing'): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match=f"the thing .*{path}"):
        Lock(path, "the thing").__enter__()
    holder.kill()
    holder.communicate()
    with Lock(path, "the thing"):
        assert path.exists()
    assert not path.exists()


def test_a_new_lock_file_is_created_where_the_old_one_was_deleted(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    first = Lock(path, "it")
    with first:
        path.unlink()
        with Lock(path, "it"):
            assert os.path.exists(path)


def test_threads_take_turns_also_after_a_failure(tmp_path: Path) -> None:
    """Each holder removes the lock file while others wait on it."""
    path, inside, most = tmp_path / "a.bin", [0], []

    def make() -> None:
        with only_one(path):
            inside[0] += 1
            most.append(inside[0])
            for _ in range(2_000):
                pass
            inside[0] -= 1

    threads = [threading.Thread(target=lambda: [make() for _ in range(50)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 300
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError), only_one(path):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_only_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with only_one(path):
        temporary_name(path).write_bytes(b"half")
        remove_abandoned(path)
        assert sorted(found.name for found in tmp_path.iterdir()) == [
            ".a.bin.lock",
            ".a.bin.tmp",
        ]
    (tmp_path / ".a.bin.lock").touch()  # nobody holds it
    path.write_bytes(b"whole")
    remove_abandoned(path)
    assert [found.name for found in tmp_path.iterdir()] == ["a.bin"]
    remove_abandoned(path)
    temporary_name(path).write_bytes(b"of a writer without a lock")
    remove_abandoned(path)
    assert temporary_name(path).exists()


def locked(path: Path) -> int:
    """Create and lock a lock file as another process would; returns its handle."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


class Locking:
    """Stands between `filelock` and the kernel: counts its attempts, and calls `before`, once,
    between its opening of the lock file and its locking of it."""

    def __init__(self, patch: pytest.MonkeyPatch, before: Callable[[], None] | None = None) -> None:
        self.attempts, self._before, self._flock = 0, before, fcntl.flock
        self._within = False
        patch.setattr(fcntl, "flock", self)

    def __call__(self, handle: int, how: int) -> None:
        if self._within:  # a call made by `before`
            self._flock(handle, how)
            return
        before, self._before = self._before, None
        if before is not None:
            self._within = True
            before()
            self._within = False
        try:
            self._flock(handle, how)
        finally:
            self.attempts += 1


def test_a_waiter_on_a_deleted_lock_file_waits_for_the_next_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the waiter's opening and locking, the holder deletes the file and ends, and the next
    one creates its own. The waiter now locks a file that has no name, which counts for nothing."""
    path, inside = tmp_path / "a.bin", threading.Event()
    lock = tmp_path / ".a.bin.lock"
    handles = [locked(lock)]

    def change_holder() -> None:
        lock.unlink()
        handles.append(locked(lock))
        os.close(handles[0])

    def make() -> None:
        with only_one(path):
            inside.set()

    locking = Locking(monkeypatch, change_holder)
    waiter = threading.Thread(target=make)
    waiter.start()
    assert until(lambda: locking.attempts >= 3 or inside.is_set())
    assert not inside.is_set(), "two holders at once"
    lock.unlink()
    os.close(handles[1])
    waiter.join()
    assert inside.is_set() and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("follower", [True, False])
def test_a_lock_on_a_deleted_file_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follower: bool
) -> None:
    """As above, for a lock that does not wait: it is refused where a next holder followed, and
    taken on a new file where none did."""
    path = tmp_path / ".lock"
    handles = [locked(path)]

    def end_holder() -> None:
        path.unlink()
        os.close(handles[0])
        if follower:
            handles.append(locked(path))

    locking = Locking(monkeypatch, end_holder)
    if follower:
        with pytest.raises(UsageError, match="the thing"):
            Lock(path, "the thing").__enter__()
        assert path.exists()
        os.close(handles[1])
    else:
        with Lock(path, "the thing"), pytest.raises(UsageError, match="the thing"):
            Lock(path, "the thing").__enter__()
    assert locking.attempts > 1


def test_a_thread_may_release_what_another_locked(tmp_path: Path) -> None:
    path, lock = tmp_path / ".lock", Lock(tmp_path / ".lock", "it")
    thread = threading.Thread(target=lock.__enter__)
    thread.start()
    thread.join()
    with pytest.raises(UsageError, match="it is being written"):
        Lock(path, "it").__enter__()
    lock.__exit__()
    assert not path.exists()
    with Lock(path, "it"):
        pass


def test_a_forked_child_neither_holds_nor_removes_its_parents_lock(tmp_path: Path) -> None:
    """Run on its own: the process of the tests has threads, which forget nothing over a fork."""
    code = """if True:
        import os, sys
        from pathlib import Path
        from ocrdata.storage.locks import Lock
        path = Path(sys.argv[1])
        end, begin = os.pipe()
        with Lock(path, "it") as lock:
            child = os.fork()
            if child == 0:
                lock.__exit__()
                os.write(begin, b"!")
                os.read(os.pipe()[0], 1)  # lives until it is killed
            assert os.read(end, 1) == b"!" and path.exists()
        with Lock(path, "it"):
            pass
        os.kill(child, 9)
        os.wait()
    """
    subprocess.run([sys.executable, "-c", code, str(tmp_path / ".lock")], check=True)


def test_no_lock_file_is_created_through_a_link(tmp_path: Path) -> None:
    other, path = tmp_path / "other", tmp_path / "a"
    lock = tmp_path / ".a.lock"
    lock.symlink_to(other)
    with pytest.raises(DiskError, match=f"{lock}.*symbolic link"), only_one(path):
        pass
    with pytest.raises(DiskError, match=f"{lock}.*symbolic link"), Lock(lock, "it"):
        pass
    assert not other.exists()


def test_a_pipe_in_place_of_the_lock_file_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".a.lock")
    with only_one(tmp_path / "a"):
        pass
    os.mkfifo(tmp_path / ".lock")
    with Lock(tmp_path / ".lock", "it"):
        pass


@pytest.mark.parametrize(
    "name, fact",
    [
        ("/proc/a", "/proc"),  # this file system creates no files
        ("missing/a", "missing"),  # the folder is not created along the way
        ("file/a", "a file, not a folder"),
        ("folder/a", "a folder"),  # .a.lock is a folder
        ("n" * 300, "too long"),
    ],
)
def test_a_lock_that_cannot_be_created_is_a_disk_error(
    tmp_path: Path, name: str, fact: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / ".a.lock").mkdir(parents=True)
    path = tmp_path / name
    with pytest.raises(DiskError, match=fact), only_one(path):
        pass
    with pytest.raises(DiskError, match=fact), Lock(path.with_name(f".{path.name}.lock"), "it"):
        pass
    assert not (tmp_path / "missing").exists()
