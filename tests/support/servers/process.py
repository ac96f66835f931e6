"""A server in a process of its own, which ends with the test process, however that ends."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

SECONDS_TO_END = 10.0
"""After this long, a server that was asked to end is killed."""


@contextmanager
def running(
    command: Sequence[str],
    *,
    log: Path,
) -> Iterator[subprocess.Popen[str]]:
    """Run a server until the end of the block; its errors go to `log`.

    The kernel kills it when the thread that started it ends, even by SIGKILL: start long-lived
    servers in the main thread.
    """
    with log.open("w") as errors:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    with process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()


def announced_port(process: subprocess.Popen[str], log: Path) -> int:
    """The port that one of our own servers prints once it listens. Raises RuntimeError with its
    errors if it ends instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the server ended at once: {log.read_text()}")
    return int(line)
