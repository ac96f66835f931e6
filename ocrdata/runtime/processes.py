"""Runs a task on shard numbers in several worker processes, each with a contiguous range of them.

Conversion and the counting of tokens use it. Workers are spawned, never forked; they send reports
to the parent, and none outlives the parent, however that ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from ocrdata.errors import OcrError

Report = Callable[[Any], None]


class Task(Protocol):
    """The work of a worker process. It is pickled and sent there, so it holds only values."""

    def begin(self) -> None:
        """Called first, once in each worker process; not called without worker processes."""

    def make(self, shards: Sequence[int], report: Report) -> None:
        """Process these shards in ascending order, calling `report` with any values."""


def split_evenly(shards: Sequence[int], workers: int) -> Iterator[Sequence[int]]:
    """Split `shards` into at most `workers` contiguous parts whose lengths differ by at most one.

    Contiguous, since neighbouring shards may share a row group of the origin.
    """
    workers = max(1, min(workers, len(shards)))
    for number in range(workers):
        part = shards[len(shards) * number // workers : len(shards) * (number + 1) // workers]
        if part:
            yield part


def run_in_processes(task: Task, shards: Sequence[int], workers: int, report: Report) -> None:
    """Run `task` on `shards` in `workers` processes; in this process if one is enough.

    `report` is called in this process with each value the workers report. The first error of a
    worker or of `report` kills all workers and is raised here.
    """
    if workers == 1 or len(shards) <= 1:
        task.make(shards, report)
        return
    context = multiprocessing.get_context("spawn")
    processes: dict[Connection[Any, Any], Any] = {}
    try:
        for part in split_evenly(shards, workers):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(task, part, sender), daemon=True)
            process.start()
            sender.close()
            processes[receiver] = process
        while processes:
            ready = set(wait(list(processes)))
            for receiver in [receiver for receiver in processes if receiver in ready]:
                _receive(receiver, processes, report)
    finally:
        for process in processes.values():
            process.kill()
        for receiver, process in processes.items():
            process.join()
            receiver.close()


def _receive(
    receiver: Connection[Any, Any], processes: dict[Connection[Any, Any], Any], report: Report
) -> None:
    try:
        kind, value = receiver.recv()
    except EOFError:
        process = processes[receiver]
        process.join()
        raise OcrError(
            f"a worker process died (exit status {process.exitcode}; -9 usually means that the "
            "machine ran out of memory); run the command again with fewer --workers"
        ) from None
    if kind == "report":
        report(value)
    elif kind == "done":
        processes.pop(receiver).join()
        receiver.close()
    elif kind == "error":
        raise value
    else:
        raise RuntimeError(f"in a worker process:\n{value}")


def _run(task: Task, shards: Sequence[int], sender: Connection[Any, Any]) -> None:
    """The whole life of a worker process."""
    # Ctrl-C reaches the whole process group; only the parent reacts, and kills the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    try:
        task.begin()
        if wait([parent.sentinel], timeout=0):
            os._exit(1)
        threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()
        task.make(shards, lambda value: sender.send(("report", value)))
        sender.send(("done", None))
    except OcrError as exc:
        sender.send(("error", exc))
    except BrokenPipeError:
        os._exit(1)
    except BaseException:
        sender.send(("bug", traceback.format_exc()))


def _exit_with(sentinel: int) -> None:
    """Exit when the parent has ended: an orphan would write into the files of the next command."""
    wait([sentinel])
    os._exit(1)
