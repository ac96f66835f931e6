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

from ocrdata.errors import OcrError, SourceError
from ocrdata.runtime.processes import Report, run_in_processes, split_evenly
from tests.support.shardcommand import ROOT, environment


@given(shards=st.lists(st.integers(0, 10_000), unique=True).map(sorted), workers=st.integers(1, 20))
def test_pieces_are_even_and_in_order(shards: list[int], workers: int) -> None:
    cut = list(split_evenly(shards, workers))
    assert [shard for piece in cut for shard in piece] == shards
    assert len(cut) == min(workers, len(shards))
    if cut:
        assert max(map(len, cut)) - min(map(len, cut)) <= 1


@dataclass(frozen=True)
class Doing:
    """Reports its shards, and does something else at one of them."""

    what: str = ""
    at: int = -1

    def begin(self) -> None:
        pass

    def make(self, shards: Sequence[int], report: Report) -> None:
        for shard in shards:
            if shard == self.at:
                self.do()
            report((shard, os.getpid()))

    def do(self) -> None:
        if self.what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "source":
            raise SourceError("the hub does not deliver")
        raise ZeroDivisionError("a bug")


def test_everything_is_reported_from_processes_of_their_own() -> None:
    got: list[tuple[int, int]] = []
    run_in_processes(Doing(), range(7), 2, got.append)
    assert sorted(shard for shard, _ in got) == list(range(7))
    processes = {process for _, process in got}
    assert len(processes) == 2 and os.getpid() not in processes


def test_one_worker_is_this_process() -> None:
    got: list[tuple[int, int]] = []
    run_in_processes(Doing(), [3, 4], 1, got.append)
    run_in_processes(Doing(), [5], 8, got.append)
    run_in_processes(Doing(), [], 8, got.append)
    assert got == [(shard, os.getpid()) for shard in (3, 4, 5)]


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("die", OcrError, r"a worker process ended by itself \(status -9; "),
        ("source", SourceError, "^the hub does not deliver$"),
        ("bug", RuntimeError, "in a worker process:\nTraceback(.|\n)*ZeroDivisionError: a bug"),
    ],
)
def test_the_first_error_ends_all(what: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        run_in_processes(Doing(what, 1), range(6), 2, lambda _: None)


def test_an_error_of_the_reports_ends_all() -> None:
    def refuse(_: object) -> None:
        raise OcrError("enough")

    with pytest.raises(OcrError, match="enough"):
        run_in_processes(Doing(), range(6), 2, refuse)


ORPHANS = """
import os, signal, sys
from ocrdata.runtime.processes import work
from tests.support.endless import Endless

def report(value):
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    work(Endless(sys.argv[1]), range(2), 2, report)
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
        # The end of the pipe is reached when its last writer has gone; a time-out is a failure.
        os.set_blocking(reading, True)
        assert os.read(reading, 1) == b""
    finally:
        os.close(reading)


LATE = """
import multiprocessing, os, sys
from dataclasses import dataclass
from ocrdata.runtime.processes import work

@dataclass(frozen=True)
class Late:
    pipe: str

    def begin(self):
        os.write(os.open(self.pipe, os.O_WRONLY), b"begins ")
        multiprocessing.parent_process().join()
        sys.setswitchinterval(60)  # other threads come when this one waits for something

    def make(self, shards, report):
        os.write(os.open(self.pipe, os.O_WRONLY), b"makes ")

if __name__ == "__main__":
    work(Late(sys.argv[1]), range(6), 6, print)
"""


def test_a_worker_that_has_begun_when_its_parent_is_gone_makes_nothing(tmp_path: Path) -> None:
    """Whoever waits for orphans may have passed by then: it has only now marked itself as one."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "late.py").write_text(LATE)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(pipe, os.O_WRONLY)  # so that reading waits for the first of them, too
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "late.py"), str(pipe)],
        env=environment(tmp_path, PYTHONPATH=str(ROOT)),
    )
    os.set_blocking(reading, True)
    with open(reading, "rb", buffering=0) as file:
        told = b""
        while told.count(b"begins ") < 6:
            told += file.read(100)
        os.close(writing)
        parent.kill()
        parent.wait()
        # The end of the pipe is reached when the last of them has gone.
        assert told + file.readall() == b"begins " * 6
