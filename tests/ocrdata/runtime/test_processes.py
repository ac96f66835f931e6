from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import DiskError, OcrError, SourceError
from ocrdata.runtime.processes import Report, run_in_processes, split_evenly
from tests.support.shardcommand import ROOT, environment


@given(shards=st.lists(st.integers(0, 10_000), unique=True).map(sorted), workers=st.integers(1, 20))
def test_parts_are_even_and_in_order(shards: list[int], workers: int) -> None:
    parts = list(split_evenly(shards, workers))
    assert [shard for part in parts for shard in part] == shards
    assert len(parts) == min(workers, len(shards))
    if parts:
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@dataclass(frozen=True)
class FailingTask:
    """Reports its shards, and fails at one of them."""

    how: str = ""
    at: int = -1

    def begin(self) -> None:
        if self.how == "begin":
            raise DiskError("work: no permission")

    def make(self, shards: Sequence[int], report: Report) -> None:
        for shard in shards:
            if shard == self.at:
                self.fail()
            report((shard, os.getpid()))

    def fail(self) -> None:
        if self.how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "source":
            raise SourceError("the hub does not deliver")
        raise ZeroDivisionError("a bug")


def test_worker_processes_report_every_shard() -> None:
    got: list[tuple[int, int]] = []
    run_in_processes(FailingTask(), range(7), 2, got.append)
    assert sorted(shard for shard, _ in got) == list(range(7))
    processes = {process for _, process in got}
    assert len(processes) == 2 and os.getpid() not in processes


def test_one_worker_runs_in_this_process() -> None:
    got: list[tuple[int, int]] = []
    run_in_processes(FailingTask(), [3, 4], 1, got.append)
    run_in_processes(FailingTask(), [5], 8, got.append)
    run_in_processes(FailingTask(), [], 8, got.append)
    assert got == [(shard, os.getpid()) for shard in (3, 4, 5)]


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("die", OcrError, r"worker process .*status -9\b.*--workers"),
        ("begin", DiskError, "^work: no permission$"),
        ("source", SourceError, "^the hub does not deliver$"),
        ("bug", RuntimeError, "worker process(.|\n)*Traceback(.|\n)*ZeroDivisionError: a bug"),
    ],
)
def test_the_first_error_of_a_worker_ends_all(
    how: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        run_in_processes(FailingTask(how, 1), range(6), 2, lambda _: None)


def test_an_error_in_report_ends_all() -> None:
    def refuse(_: object) -> None:
        raise OcrError("enough")

    with pytest.raises(OcrError, match="enough"):
        run_in_processes(FailingTask(), range(6), 2, refuse)


ORPHANS = """
import os, signal, sys
from ocrdata.runtime.processes import run_in_processes
from tests.support.endless import Endless

def report(value):
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    run_in_processes(Endless(sys.argv[1]), range(2), 2, report)
"""


def test_no_worker_outlives_a_killed_parent(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "orphans.py").write_text(ORPHANS)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        done = subprocess.run(
            [sys.executable, str(tmp_path / "orphans.py"), str(pipe)],
            env=environment(tmp_path, PYTHONPATH=str(ROOT)),
            check=False,
            timeout=60,
        )
        assert done.returncode == -signal.SIGKILL
        # The pipe ends when its last writer has exited; a time-out fails the test.
        os.set_blocking(reading, True)
        assert os.read(reading, 1) == b""
    finally:
        os.close(reading)


LATE = """
import multiprocessing, os, sys
from dataclasses import dataclass
from ocrdata.runtime.processes import run_in_processes

@dataclass(frozen=True)
class Late:
    pipe: str

    def begin(self):
        os.write(os.open(self.pipe, os.O_WRONLY), b"begin ")
        multiprocessing.parent_process().join()
        sys.setswitchinterval(60)  # other threads run only while this one blocks

    def make(self, shards, report):
        os.write(os.open(self.pipe, os.O_WRONLY), b"make ")

if __name__ == "__main__":
    run_in_processes(Late(sys.argv[1]), range(6), 6, print)
"""


def test_a_worker_whose_parent_dies_during_begin_makes_nothing(tmp_path: Path) -> None:
    """`begin` marks a worker as one to wait for; the next command may have looked before that."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "late.py").write_text(LATE)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(pipe, os.O_WRONLY)  # so that reading also waits for the first worker
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "late.py"), str(pipe)],
        env=environment(tmp_path, PYTHONPATH=str(ROOT)),
    )
    os.set_blocking(reading, True)
    with open(reading, "rb", buffering=0) as file:
        got = b""
        while got.count(b"begin ") < 6:
            got += file.read(100)
        os.close(writing)
        parent.kill()
        parent.wait()
        # The pipe ends when the last worker has exited.
        assert got + file.readall() == b"begin " * 6
