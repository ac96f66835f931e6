"""A cache of rows of several lengths against one row at a time."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from ocrtrain.model.row_cache import RowCache

LAYERS = 2


def filled(padding: list[int], length: int, values: list[int]) -> RowCache:
    """A cache whose positions hold their row's value, and zeros where they are padding."""
    cache = RowCache(padding)
    rows = torch.zeros(len(padding), 1, length, 1)
    for row, (count, value) in enumerate(zip(padding, values, strict=True)):
        rows[row, :, count:] = value
    for layer in range(LAYERS):
        cache.update(rows, -rows, layer)
    return cache


def contents(cache: RowCache) -> list[list[float]]:
    """What each row holds that is not padding; checks that all layers hold it, and that the mask
    shows just this."""
    found = []
    seen = cache.seen(1, torch.device("cpu"))
    for row, count in enumerate(cache.padding):
        keys = cache.keys[0][row, 0, :, 0]
        assert all(torch.equal(keys, one[row, 0, :, 0]) for one in cache.keys)
        assert all(torch.equal(keys, -one[row, 0, :, 0]) for one in cache.values)
        assert not keys[:count].any() and len(keys) == len(cache)
        if seen is not None:
            assert seen.shape == (len(cache.padding), 1, 1, len(cache) + 1)
            assert seen[row, 0, 0].tolist() == [False] * count + [True] * (len(cache) + 1 - count)
        found.append(keys[count:].tolist())
    assert (seen is None) == (not any(cache.padding))
    return found


lengths = st.lists(st.integers(1, 5), min_size=1, max_size=3)


@given(groups=st.lists(lengths, min_size=1, max_size=4), data=st.data())
def test_rows_keep_what_they_hold_while_others_come_and_go(
    groups: list[list[int]], data: st.DataObject
) -> None:
    cache, expected, number = RowCache(), [], 0
    for group in groups:
        values = list(range(number + 1, number + 1 + len(group)))
        number += len(group)
        longest = max(group)
        cache.join(filled([longest - one for one in group], longest, values))
        expected += [[float(v)] * n for v, n in zip(values, group, strict=True)]
        assert contents(cache) == expected
        kept = [at for at in range(len(expected)) if data.draw(st.booleans())]
        cache.keep(kept)
        expected = [expected[at] for at in kept]
        assert contents(cache) == expected if kept else len(cache) == 0
        assert not cache.padding or min(cache.padding) == 0
        new = torch.full((len(kept), 1, 1, 1), 9.0)
        for layer in range(LAYERS if kept else 0):
            keys, values_ = cache.update(new, -new, layer)
            assert torch.equal(keys, -values_)
        expected = [[*row, 9.0] for row in expected]


def test_several_new_positions_see_those_before_them() -> None:
    cache = filled([1, 0], 2, [1, 2])
    seen = cache.seen(2, torch.device("cpu"))
    assert seen is not None
    assert seen[0, 0].int().tolist() == [[0, 1, 1, 0], [0, 1, 1, 1]]
    assert seen[1, 0].int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
