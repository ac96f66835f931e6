"""Asks the kernel whether a process waits for a lock, so that tests need no sleeps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

LOCKS = Path("/proc/locks")
SECONDS = 60


def waits_on(handle: int) -> bool:
    """Whether anyone is blocked on a lock of this open file: its inode is in a line with an arrow.
    The file may have been removed."""
    inode = f":{os.fstat(handle).st_ino}"
    lines = (line.split() for line in LOCKS.read_text().splitlines())
    return any("->" in words and any(word.endswith(inode) for word in words) for words in lines)


def until(true: Callable[[], bool]) -> bool:
    """Poll until something is true; False if it is not within a minute."""
    end = time.monotonic() + SECONDS
    while not true():
        if time.monotonic() > end:
            return False
        os.sched_yield()
    return True
