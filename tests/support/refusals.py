"""A disk that fills up, folders that may not be written to, files that may not grow: at chosen
points of a program, which must say so in a clear line, keep what it had, and go on once cured."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.kill import cure, run_refused

REASONS = {
    "fill": ("no space left on the disk", "are needed, "),
    "forbid": ("no permission",),
    "limit": ("the size limit",),
}
"""What the line has to say; a converter that has not begun yet says what is needed and free."""


@contextmanager
def small_disk(folder: Path, size: str = "24m") -> Iterator[Path]:
    """A file system of its own; skips where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def refused_at(
    points: Sequence[int],
    action: str,
    command: Sequence[str],
    *,
    out: Path,
    env: Mapping[str, str],
    go_on: Callable[[], None],
) -> Counter[str]:
    """Refuse at each point. `go_on` checks that earlier data is intact, runs again, compares with
    the unbroken run, and removes the output. Returns how the programs ended.

    Near the end of a run nothing is left to be refused: then it ends well.
    """
    if action == "forbid" and shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv here")
    ends: Counter[str] = Counter()
    for at in points:
        scratch = out.parent.parent / "hook"
        done = run_refused(command, out, action, at=at, scratch=scratch, env=env)
        cure(out)
        if done.returncode:
            check_told(done, action, at)
        ends["told" if done.returncode else "ended well"] += 1
        go_on()
    return ends


def check_told(done: subprocess.CompletedProcess[str], action: str, at: int) -> None:
    """Exit status 1 and one line with the reason."""
    assert done.returncode == 1, (action, at, done.returncode, done.stderr)
    lines = [line for line in done.stderr.splitlines() if not line.endswith("B/s)")]
    assert len(lines) == 1, (action, at, done.stderr)
    assert lines[0].startswith("error: ") or " error: " in lines[0], (action, at, lines[0])
    assert any(reason in lines[0] for reason in REASONS[action]), (action, at, lines[0])
