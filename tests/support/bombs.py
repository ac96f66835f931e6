"""Hostile files that expand or point outside their folder, and the memory that reading them takes.

A `Bomb` is a hostile folder, a valid twin, and a public reader of both. `explode` reads them in a
child process, the twin first, and reports how each bomb ended and how far it raised the peak memory
above what the process held after reading the twin. The peak is the kernel's VmHWM, reset before
each bomb; `ru_maxrss` cannot be reset and starts at the parent's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ocrdata.errors import OcrError

ROOT = Path(__file__).parents[2]
LIMIT = 64 << 20
"""Bytes by which a refused file may raise the peak memory."""

CONTROL = 160 << 20
DEPTH = 100_000
INDEXES = (
    r"\d+/(sound|hostile)/x(-000)?\.index\.parquet"
    r"|work/cache(/[0-9a-f]{32}(/[0-9a-f]{32}\.blocks)?)?"
)
"""The only files that reading may write: a readable tar is indexed, whatever its images claim, and
its index kept in blocks in the cache folder."""

Make = Callable[[Path, bool], None]
"""make(folder, hostile): writes the bomb, or its valid twin, into the folder."""


@dataclass(frozen=True)
class Bomb:
    """`read` must accept the valid folder and refuse the hostile one with a message matching
    `says`."""

    name: str
    make: Make
    read: Callable[[Path], object]
    says: str


@dataclass(frozen=True)
class Ending:
    """How reading a bomb ended. `error` is the class of our exception, "" if the bomb was
    accepted, or "crash" for any other exception; `said` is the message; `grown` is in bytes."""

    name: str
    error: str
    said: str
    grown: int


def _memory(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found, status
    return int(found[1]) << 10


def measured(call: Callable[[], object]) -> int:
    """Bytes by which the peak memory during `call` exceeds the memory held before it."""
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to what is held now
    call()
    return max(0, _memory("VmHWM") - before)


def can_measure() -> bool:
    """Whether the kernel lets a process reset its peak memory."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _ending(bomb: Bomb, folder: Path) -> Ending:
    bomb.read(folder / "sound")
    error = said = ""

    def attempt() -> None:
        nonlocal error, said
        try:
            bomb.read(folder / "hostile")
        except OcrError as exc:
            error, said = type(exc).__name__, str(exc)
        except Exception as exc:  # anything else that escapes from a reader is a finding
            error, said = "crash", f"{type(exc).__name__}: {exc}"

    grown = measured(attempt)
    return Ending(bomb.name, error, said[:2000], grown)


def _control() -> Ending:
    """Memory taken and freed again, which a working measurement must show."""
    return Ending("control", "", "", measured(lambda: b"x" * CONTROL))


def everything(folder: Path) -> set[str]:
    """Relative paths of everything in a folder, without following links."""
    return {
        str((Path(place) / name).relative_to(folder))
        for place, folders, files in os.walk(folder)
        for name in folders + files
    }


def explode(module: str, bombs: Iterable[Bomb], folder: Path) -> list[Ending]:
    """Write the `BOMBS` of a module and read them in a child process; the control comes last.

    Raises AssertionError if reading wrote anything but indexes.
    """
    bombs = tuple(bombs)
    for number, bomb in enumerate(bombs):
        for kind in ("sound", "hostile"):
            (folder / str(number) / kind).mkdir(parents=True)
            bomb.make(folder / str(number) / kind, kind == "hostile")
    (folder / "work").mkdir()
    before = everything(folder)
    code = f"from tests.support import bombs; from {module} import BOMBS; bombs.child(BOMBS)"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
           "OCR_SHARDS_CACHE": str(folder / "work" / "cache")}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder / "work", env=env, check=False,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    fresh = everything(folder) - before
    stray = [name for name in fresh if not re.fullmatch(INDEXES, name)]
    assert not stray, stray
    endings = [Ending(**json.loads(line)) for line in done.stdout.splitlines()]
    assert [ending.name for ending in endings] == [*(bomb.name for bomb in bombs), "control"]
    return endings


def child(bombs: Iterable[Bomb]) -> None:
    """Read all bombs in the parent of the working folder; print one JSON ending per line."""
    for number, bomb in enumerate(bombs):
        print(json.dumps(vars(_ending(bomb, Path("..").resolve() / str(number)))), flush=True)
    print(json.dumps(vars(_control())))


def deep(shape: str) -> str:
    """JSON nested `DEPTH` times."""
    return "[" * DEPTH + "]" * DEPTH if shape == "list" else '{"a":' * DEPTH + "1" + "}" * DEPTH


def faults(bombs: Iterable[Bomb], endings: list[Ending]) -> list[str]:
    """What is wrong with these endings, one line each; empty if every bomb was refused properly."""
    found = []
    for bomb, ending in zip(bombs, endings, strict=False):
        if ending.error in ("", "crash"):
            found.append(f"{bomb.name}: {ending.error or 'accepted'} {ending.said[:300]}")
        elif not re.search(bomb.says, ending.said):
            found.append(f"{bomb.name}: refused for another reason: {ending.said[:300]}")
        if ending.grown > LIMIT:
            found.append(f"{bomb.name}: took {ending.grown >> 20} MiB")
    if not CONTROL * 0.9 < endings[-1].grown < CONTROL * 1.5:
        found.append(f"{CONTROL >> 20} MiB were measured as {endings[-1].grown >> 20}")
    return found
