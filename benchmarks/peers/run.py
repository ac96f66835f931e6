"""Runs parts of one loader in a process of its own, and measures its memory when it asks for it.

Memory is PSS (proc(5)), summed over the process tree: a page that three of its processes map counts
once. Everything the loaders write, including caches and temporary files, goes into one folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.common import ROOT

PERIOD = 0.05
"""Seconds between two measurements of memory."""

LIMIT = 180.0
"""Seconds without output after which a part is stopped."""


@dataclass
class Outcome:
    """The results of some parts, by row; `error` says why they failed, if they did."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: str = ""


def environment(folder: Path) -> dict[str, str]:
    """Environment variables: one thread for numerical libraries, no hub, all caches in `folder`."""
    # litdata deletes its cache folders; by default these are in the system's temporary folder.
    own = {
        "DATA_OPTIMIZER_CACHE_FOLDER": "cache-litdata",
        "DATA_OPTIMIZER_DATA_CACHE_FOLDER": "cache-litdata-data",
        "LITDATA_CACHE_DIR": "cache-litdata-chunks",
        "HF_HOME": "cache-hub",
        "OCR_SHARDS_CACHE": "cache-ours",
        "TMPDIR": "cache-temporary",
    }
    for name in own.values():
        (folder / name).mkdir(exist_ok=True)
    return {
        **os.environ,
        **{variable: str(folder / name) for variable, name in own.items()},
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": str(ROOT),
    }


def run_parts(loader: str, parts: Sequence[str], folder: Path, *, samples: int) -> Outcome:
    """Run parts one after the other. A failure is returned as an outcome, not raised."""
    words = [sys.executable, "-m", "benchmarks.peers.case", loader,
             str(folder / loader.replace(", ", "-").replace(" ", "-")), *parts,
             "--samples", str(samples)]  # fmt: skip
    with (folder / "errors.txt").open("w+") as errors:
        process = subprocess.Popen(
            words, env=environment(folder), cwd=ROOT, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
        outcome = Outcome()
        try:
            listen(process, outcome)
        finally:
            # Also ends workers that outlived the process, since they belong to its session.
            end_session(process)
        errors.seek(0)
        lines = [line.strip() for line in errors if line.strip()]
        if process.returncode:  # after a timeout, minus the number of the signal that stopped it
            said = lines[-1] if lines else "no error output"
            outcome.error = (
                outcome.error or f"{' '.join(parts)}: status {process.returncode}: {said[:300]}"
            )
    return outcome


def listen(process: subprocess.Popen[str], outcome: Outcome) -> None:
    """Collect the rows that the process prints, until it ends or its time is up."""
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    assert process.stdin is not None and process.stdout is not None
    reader = threading.Thread(target=forward, args=(process.stdout, said), daemon=True)
    reader.start()
    while True:
        line = hear(process, said)
        if not line:
            return
        row = json.loads(line)
        name = row.pop("row")
        if name == "memory begins":
            answer(process.stdin)
            outcome.rows["memory"] = watch(process, said)
            answer(process.stdin)
        elif name == "end":
            process.wait(LIMIT)
            return
        else:
            outcome.rows[name] = row


def hear(process: subprocess.Popen[str], said: queue.SimpleQueue[str]) -> str:
    """The next line; "" if the process has ended, or has printed nothing for `LIMIT` seconds."""
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        try:
            return said.get(timeout=1)
        except queue.Empty:
            # End of file is no sign: workers may keep the pipe open after the process ends.
            if process.poll() is not None:
                break
    return ""


def forward(stream: IO[str], said: queue.SimpleQueue[str]) -> None:
    for line in stream:
        said.put(line)


def answer(stream: IO[str]) -> None:
    with contextlib.suppress(BrokenPipeError):
        stream.write("\n")
        stream.flush()


def watch(process: subprocess.Popen[str], said: queue.SimpleQueue[str]) -> dict[str, int]:
    """Peak memory until the process prints its next row."""
    peak, peak_anonymous = 0, 0
    while process.poll() is None:
        pss, anonymous = memory(process.pid)
        peak, peak_anonymous = max(peak, pss), max(peak_anonymous, anonymous)
        try:
            said.get(timeout=PERIOD)
        except queue.Empty:
            continue
        break
    return {"pss": peak, "anonymous": peak_anonymous}


def memory(root: int) -> tuple[int, int]:
    """Memory of a process and its descendants in bytes: PSS, and the part no file backs."""
    pss = anonymous = 0
    for pid in tree(root):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:  # it has ended in the meantime
            continue
        kilobytes = {line.split()[0]: int(line.split()[1]) for line in lines}
        pss += kilobytes.get("Pss:", 0) * 1024
        anonymous += (kilobytes.get("Pss_Anon:", 0) + kilobytes.get("Pss_Shmem:", 0)) * 1024
    return pss, anonymous


def tree(root: int) -> Iterator[int]:
    """A process and its descendants."""
    yield root
    for children in Path(f"/proc/{root}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except OSError:
            continue
        for child in found:
            yield from tree(int(child))


def end_session(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()
