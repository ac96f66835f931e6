"""The loop by itself, compiled and as it stands; its results are
`tests/ocrdata/planning/test_mixture.py`'s."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.planning import jit, mixture
from ocrdata.planning.jit import jit_if_large
from ocrdata.planning.mixture import DONE, _fill_slots, schedule
from tests.support.phases import phases


@given(data=st.data())
def test_compiled_and_plain_agree(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 6))
    lists = st.lists(st.integers(0, 30), min_size=count, max_size=count).filter(any)
    parts = phases(data.draw(lists), data.draw(lists), starts=(0, data.draw(st.integers(1, 99))))
    limits = data.draw(st.lists(st.integers(0, 60), min_size=count, max_size=count))
    policy = data.draw(st.sampled_from(mixture.AT_END))
    sizes = [np.arange(1, 300) * (n + 3) % 101 + 1 for n in range(count)]
    found = []
    for worth in (0, 1 << 60):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jit, "WORTH", worth)
            found += [
                schedule(parts, 200, available=limits, at_end=policy, sizes=own)
                for own in (None, lambda source, start, stop: sizes[source][start:stop])
            ]
    for one, two in zip(found[:2], found[2:], strict=True):
        assert one.slots.tolist() == two.slots.tolist()
        assert one.ended_by == two.ended_by


@pytest.mark.parametrize("work", [0, jit.WORTH])
def test_what_is_left_over_adds_up_to_nothing(work: int) -> None:
    slots, given_out = np.zeros(50, np.uint16), np.zeros(3, np.int64)
    ahead = np.zeros(3, np.int64)
    ones = np.ones(3, np.int64)
    reached, why, _ = jit_if_large(_fill_slots, work=work)(
        slots, 0, 50, np.array([[3, 2, 1], [0, 1, 5]]), np.array([20, 0]), ahead, given_out,
        ones, np.zeros(3, np.int64), np.full(3, 1 << 60), np.full(3, 1 << 60), True,
    )  # fmt: skip
    assert (reached, why) == (50, DONE)
    assert given_out.tolist() == np.bincount(slots, minlength=3).tolist()
    wanted = 6 * given_out - 20 * np.array([3, 2, 1]) - 30 * np.array([0, 1, 5])
    assert ahead.tolist() == wanted.tolist() and ahead.sum() == 0
