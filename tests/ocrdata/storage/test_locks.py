import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ocrdata.errors import DiskError, UsageError
from ocrdata.storage.files import temporary_name
from ocrdata.storage.locks import Lock, only_one, remove_abandoned
from tests.support.waiting import until, waits_on


def test_a_lock_has_one_holder_and_goes_with_it(tmp_path: Path) -> None:
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
    with pytest.raises(UsageError, match="the thing is being written by another process"):
        Lock(path, "the thing").__enter__()
    holder.kill()
    holder.communicate()
    with Lock(path, "the thing"):
        assert path.exists()
    assert not path.exists()


def test_a_lock_file_removed_meanwhile_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    first = Lock(path, "it")
    with first:
        path.unlink()
        with Lock(path, "it"):
            assert os.path.exists(path)


def test_one_at_a_time_even_where_the_first_failed(tmp_path: Path) -> None:
    """Each holder removes the lock file; who waited on it must not meet the next one's."""
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


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
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
    temporary_name(path).write_bytes(b"another writer's, without a lock")
    remove_abandoned(path)
    assert temporary_name(path).exists()


def locked(path: Path) -> int:
    """A lock file of that name with its lock, on a handle of its own: somebody else's."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def test_who_waited_on_a_removed_lock_file_waits_for_the_next_holder(tmp_path: Path) -> None:
    """The last holder removes the file and lets go; a new one has made its own by then."""
    path, inside = tmp_path / "a.bin", threading.Event()
    lock = tmp_path / ".a.bin.lock"

    def make() -> None:
        with only_one(path):
            inside.set()

    first = locked(lock)
    waiter = threading.Thread(target=make)
    waiter.start()
    assert until(lambda: waits_on(first))
    lock.unlink()
    second = locked(lock)
    os.close(first)  # the waiter has the lock of a file that nobody finds any more
    assert until(lambda: waits_on(second) or inside.is_set())
    assert not inside.is_set(), "two were at it at once"
    lock.unlink()
    os.close(second)
    waiter.join()
    assert inside.is_set() and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("follower", [True, False])
def test_a_lock_taken_on_a_removed_file_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follower: bool
) -> None:
    """Between the opening and the locking the last holder removes the file and lets go: the lock
    is that of a new file, where nobody else has it."""
    path, handles = tmp_path / ".lock", [locked(tmp_path / ".lock")]
    flock = fcntl.flock

    def late(handle: int, how: int) -> None:
        if len(handles) == 1:
            path.unlink()
            os.close(handles[0])
            handles.append(-1)
            if follower:
                monkeypatch.undo()
                handles[1] = locked(path)
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    if follower:
        with pytest.raises(UsageError, match="the thing is being written by another process"):
            Lock(path, "the thing").__enter__()
        assert path.exists()
        os.close(handles[1])
    else:
        with Lock(path, "the thing"), pytest.raises(UsageError, match="written by another"):
            Lock(path, "the thing").__enter__()


def test_a_lock_makes_no_file_through_a_link(tmp_path: Path) -> None:
    other, path = tmp_path / "other", tmp_path / "a"
    lock = tmp_path / ".a.lock"
    lock.symlink_to(other)
    with pytest.raises(DiskError, match="a symbolic link stands"), only_one(path):
        pass
    with pytest.raises(DiskError, match="a symbolic link stands"), Lock(lock, "it"):
        pass
    assert not other.exists()
