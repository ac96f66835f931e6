import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ocrdata.errors import UsageError
from ocrdata.files import temporary_name
from ocrdata.locks import Lock, only_one, remove_abandoned


def test_a_lock_has_one_holder_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    code = (
        "import sys; from pathlib import Path; from ocrdata.locks import Lock\n"
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
