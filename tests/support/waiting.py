"""Who waits for a lock, as the kernel tells it: nothing needs to sleep and hope."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

LOCKS = Path("/proc/locks")
SECONDS = 60


def waits_on(handle: int) -> bool:
    """Whether anybody is blocked on a lock of this open file: a line with an arrow has its
    inode. The file may have lost its name."""
    inode = f":{os.fstat(handle).st_ino}"
    lines = (line.split() for line in LOCKS.read_text().splitlines())
    return any("->" in words and any(word.endswith(inode) for word in words) for words in lines)


def until(true: Callable[[], bool]) -> bool:
    """Look again and again until something is true; False where it has not come in a minute."""
    end = time.monotonic() + SECONDS
    while not true():
        if time.monotonic() > end:
            return False
        os.sched_yield()
    return True
