"""Compiles the loops of planning with numba, if there is enough work for it to pay.

Every loop is also valid plain Python with the same results: small plans run it uncompiled, since
importing numba and compiling takes 1 to 2 seconds, and so does every plan if numba, an optional
dependency, is missing. Compiled code is not cached on disk: numba's cache is a pickle.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

Loop = TypeVar("Loop", bound=Callable[..., object])

WORTH = 100_000
"""Iterations from which on compiling pays: plain Python takes 2 to 5 us for each."""


def jit_if_large(loop: Loop, *, work: int) -> Loop:
    """`loop` compiled, if `work`, its iterations, are many and numba is installed; else `loop`
    itself."""
    return _compile(loop) if work >= WORTH else loop


@cache
def _compile(loop: Loop) -> Loop:
    numba = _import_numba()
    if numba is None:
        return loop
    compiled: Loop = numba.njit(nogil=True)(loop)
    return compiled


@cache
def _import_numba() -> Any | None:
    """numba, or None where it is missing: then a warning is logged, once."""
    try:
        import numba
    except ImportError as exc:
        logging.getLogger(__name__).warning(
            "planning will be slow (%s): to speed it up, run pip install numba", exc
        )
        return None
    return numba
