import numpy as np

from ocrdata.planning import jit
from ocrdata.planning.jit import jit_if_large


def total(values):  # type: ignore[no-untyped-def]
    found = 0
    for value in values:
        found += value
    return found


def test_small_work_is_done_as_it_stands() -> None:
    assert jit_if_large(total, work=jit.WORTH - 1) is total


def test_large_work_is_compiled_once_and_gives_the_same() -> None:
    found = jit_if_large(total, work=jit.WORTH)
    assert found is not total
    assert found is jit_if_large(total, work=jit.WORTH)
    assert found(np.arange(1_000)) == total(range(1_000)) == 499_500
