"""Loops of planning, compiled where there is enough to do.

Owner of the decision. A loop is plain Python that numba can compile; small plans run it as it
stands, since importing numba and compiling takes a second or two, and the results are the same.
Nothing is cached on disk: numba's cache is a pickle.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

Loop = TypeVar("Loop", bound=Callable[..., object])

WORTH = 100_000
"""Rounds of a loop from which on compiling pays: plain Python takes 2 to 5 us for one."""


def jit_if_large(loop: Loop, *, work: int) -> Loop:
    """`loop`, or its compiled twin where it will go round `work` times or more."""
    return _compile(loop) if work >= WORTH else loop


@cache
def _compile(loop: Loop) -> Loop:
    import numba

    compiled: Loop = numba.njit(nogil=True)(loop)
    return compiled
