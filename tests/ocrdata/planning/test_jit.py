import logging
import sys
from functools import cache

import numpy as np
import pytest

from ocrdata.planning import jit
from ocrdata.planning.choices import AT_END
from ocrdata.planning.jit import jit_if_large
from ocrdata.planning.mixture import _fill_slots, schedule
from ocrdata.planning.packing import _best_fit, pack
from ocrdata.planning.permutation import MANY, EpochPermutation, _walk
from tests.support.phases import phases


def total(values):  # type: ignore[no-untyped-def]
    found = 0
    for value in values:
        found += value
    return found


def test_small_work_is_not_compiled() -> None:
    assert jit_if_large(total, work=jit.WORTH - 1) is total


def test_large_work_is_compiled_once_with_the_same_result() -> None:
    found = jit_if_large(total, work=jit.WORTH)
    assert found is not total
    assert found is jit_if_large(total, work=jit.WORTH)
    assert found(np.arange(1_000)) == total(range(1_000)) == 499_500


def hide_numba(patch: pytest.MonkeyPatch) -> None:
    """Make `import numba` fail, as where it is not installed, and forget what was compiled."""
    patch.setitem(sys.modules, "numba", None)
    for name in ("_compile", "_import_numba"):
        patch.setattr(jit, name, cache(getattr(jit, name).__wrapped__))


def test_without_numba_loops_run_uncompiled_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hide_numba(monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert jit_if_large(total, work=jit.WORTH - 1) is total
        assert not caplog.records
        for _ in range(3):
            assert jit_if_large(total, work=jit.WORTH) is total
            assert jit_if_large(sum, work=jit.WORTH) is sum
    assert len(caplog.records) == 1
    assert "pip install numba" in caplog.text


@pytest.mark.parametrize("size", [jit.WORTH, 10**9])
def test_an_order_is_the_same_without_numba(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    assert jit_if_large(_walk, work=size) is not _walk, "not compiled"
    order = EpochPermutation(size, seed=7, epoch=2, source="charts")
    places = np.linspace(0, size - 1, 3 * MANY).astype(np.int64)
    compiled = order.many(places).tolist()
    hide_numba(monkeypatch)
    assert order.many(places).tolist() == compiled


def test_packing_is_the_same_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    lengths, images = random.integers(1, 500, 2_000), random.integers(0, 3, 2_000)
    assert jit_if_large(_best_fit, work=jit.WORTH) is not _best_fit, "not compiled"
    found = pack(lengths, images, capacity=1024, max_images=4, compiled=True)
    hide_numba(monkeypatch)
    plain = pack(lengths, images, capacity=1024, max_images=4, compiled=True)
    assert plain.rows == found.rows and plain.row_of.tolist() == found.row_of.tolist()
    assert plain.row_of.dtype == found.row_of.dtype


@pytest.mark.parametrize("at_end", AT_END)
def test_a_mixture_is_the_same_without_numba(monkeypatch: pytest.MonkeyPatch, at_end: str) -> None:
    monkeypatch.setattr(jit, "WORTH", 0)
    parts, limits = phases([3, 2, 1], [0, 1, 5], starts=(0, 100)), [400, 300, 2_000]

    def sizes(source: int, start: int, stop: int):  # type: ignore[no-untyped-def]
        return np.arange(start, stop) * (source + 3) % 101 + 1

    def schedules():  # type: ignore[no-untyped-def]
        made = [
            schedule(parts, 1_000, available=limits, at_end=at_end, sizes=own)
            for own in (None, sizes)
        ]
        return [(found.slots.tolist(), found.ended_by) for found in made]

    assert jit_if_large(_fill_slots, work=0) is not _fill_slots, "not compiled"
    compiled = schedules()
    hide_numba(monkeypatch)
    assert schedules() == compiled
