from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ocrdata.conversion.work_folder import ShardRecord, WorkFolder, differences
from ocrdata.errors import ShardError
from ocrdata.shards.names import make_key
from ocrdata.shards.writer import ShardWriter
from tests.support.numbered import Numbered
from tests.support.shardcommand import environment
from tests.support.waiting import until, waits_on


def make_shard(folder: Path) -> ShardRecord:
    with ShardWriter(folder / "set-000.tar") as writer:
        for row, sample in Numbered(3).rows(0, 3):
            writer.write(make_key(row), sample)  # type: ignore[arg-type]  # none is rejected
        return ShardRecord(writer.close(), 3, 4, 5, ((7, "why"),))


def test_a_record_is_valid_only_for_the_files_it_was_written_for(tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path, "set")
    assert folder.provenance() is None and folder.recorded_provenance() is None
    folder.begin({"rows": 3})
    assert folder.provenance() == folder.recorded_provenance() == {"rows": 3}
    assert folder.read_record(0) is None
    record = make_shard(tmp_path)
    folder.write_record(0, record)
    assert folder.read_record(0) == record
    (tmp_path / "set-000.tar").write_bytes(b"short")
    assert folder.read_record(0) is None
    make_shard(tmp_path)
    assert folder.read_record(0) == record
    (folder.path / "000.json").write_text("{}")
    assert folder.read_record(0) is None
    folder.remove()
    folder.remove()
    assert not folder.path.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"recipe\.json: .*JSON"),
        ('{"version": "1.0"}', r"recipe\.json: .*conversion.*delete"),
        ('{"version": "2.0", "provenance": {}}', r"recipe\.json: .*version 2\.0"),
    ],
)
def test_invalid_settings_of_a_conversion(tmp_path: Path, text: str, message: str) -> None:
    folder = WorkFolder(tmp_path, "set")
    folder.path.mkdir()
    (folder.path / "recipe.json").write_text(text)
    with pytest.raises(ShardError, match=message):
        folder.provenance()


def test_workers_hold_the_folder_until_they_exit(tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path, "set")
    folder.wait_for_orphans()
    folder.begin({})
    handle = folder.hold()
    other = os.open(folder.path, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
    folder.wait_for_orphans()


def test_waiting_for_orphans_ends_when_the_last_has_exited(tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path, "set")
    folder.begin({})
    code = (
        "import sys; from pathlib import Path\n"
        "from ocrdata.conversion.work_folder import WorkFolder\n"
        "WorkFolder(Path(sys.argv[1]), 'set').hold(); print('held', flush=True); sys.stdin.read()"
    )
    orphans = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment(tmp_path),
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]  # fmt: skip
    for orphan in orphans:
        assert orphan.stdout is not None and orphan.stdout.readline() == "held\n"
    waiter = threading.Thread(target=folder.wait_for_orphans)
    handle = os.open(folder.path, os.O_RDONLY)
    waiter.start()
    for orphan in orphans:
        assert until(lambda: waits_on(handle) or not waiter.is_alive())
        assert waiter.is_alive(), "an orphan is still running"
        orphan.kill()
        orphan.communicate()
    waiter.join()
    os.close(handle)


def test_differences_name_what_differs() -> None:
    old = {"repository": "a/b", "rows": 1, "command": "x", "licence": "mit"}
    assert differences(old, {**old, "command": "y", "licence": "gpl"}) == []
    assert differences(old, {"repository": "a/c", "start": 0}) == [
        "repository was 'a/b', now 'a/c'", "rows was 1, now None", "start was None, now 0",
    ]  # fmt: skip


def test_leftovers_of_a_similar_name_are_kept(tmp_path: Path) -> None:
    for name in (".a.b-000.tar.tmp", ".a.b.json.tmp", ".axb-000.tar.tmp", ".axb.json.tmp"):
        (tmp_path / name).touch()
    WorkFolder(tmp_path, "a.b").remove_leftovers()
    assert sorted(os.listdir(tmp_path)) == [".axb-000.tar.tmp", ".axb.json.tmp"]
