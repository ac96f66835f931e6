"""Shards made, or counted, by several processes at once, each a stretch of neighbours.

Owner of the worker processes of conversions and counts: how they start (spawn, never fork), what
they report, and that none outlives its parent, however that ends. It knows nothing of shards but
their numbers.
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
    """What a worker does; it is sent to the process, so it holds values."""

    def begin(self) -> None:
        """Called once in each worker process before anything else."""

    def make(self, shards: Sequence[int], report: Report) -> None:
        """Make these shards, in rising order, reporting on the way."""


def split_evenly(shards: Sequence[int], workers: int) -> Iterator[Sequence[int]]:
    """`shards` cut in at most `workers` stretches whose lengths differ by one at most.

    Neighbours stay together, since they may share a row group.
    """
    workers = max(1, min(workers, len(shards)))
    for number in range(workers):
        piece = shards[len(shards) * number // workers : len(shards) * (number + 1) // workers]
        if piece:
            yield piece


def run_in_processes(task: Task, shards: Sequence[int], workers: int, report: Report) -> None:
    """Make `shards` with `workers` processes, or in this one where that is 1.

    `report` is called here with whatever the workers report. The first error of a worker, or of
    `report`, ends all the others at once; theirs is raised here.
    """
    if workers == 1 or len(shards) <= 1:
        task.make(shards, report)
        return
    context = multiprocessing.get_context("spawn")
    processes: dict[Connection[Any, Any], Any] = {}
    try:
        for piece in split_evenly(shards, workers):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(task, piece, sender), daemon=True)
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
            f"a worker process ended by itself (status {process.exitcode}; -9 is what the system "
            "does where memory runs out); run again, with fewer --workers"
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
    """A worker process from beginning to end."""
    # Ctrl-C reaches the whole group; the parent alone decides, and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    task.begin()
    if wait([parent.sentinel], timeout=0):
        os._exit(1)
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    try:
        task.make(shards, lambda value: sender.send(("report", value)))
        sender.send(("done", None))
    except OcrError as exc:
        sender.send(("error", exc))
    except BrokenPipeError:
        os._exit(1)
    except BaseException:
        sender.send(("bug", traceback.format_exc()))


def _end_with(sentinel: int) -> None:
    """End this process when its parent has ended: orphans would write into a next run's files."""
    wait([sentinel])
    os._exit(1)
