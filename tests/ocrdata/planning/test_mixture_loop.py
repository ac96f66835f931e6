"""The loop of the mixture on its own, compiled and not; its results are tested in
test_mixture.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.planning import jit
from ocrdata.planning.choices import AT_END
from ocrdata.planning.jit import jit_if_large
from ocrdata.planning.mixture import (
    LoopSizes,
    LoopSources,
    LoopWeights,
    StopReason,
    _fill_slots,
    _targets,
    schedule,
)
from tests.support.phases import phases


@given(data=st.data())
def test_compiled_and_plain_agree(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 6))
    lists = st.lists(st.integers(0, 30), min_size=count, max_size=count).filter(any)
    parts = phases(data.draw(lists), data.draw(lists), starts=(0, data.draw(st.integers(1, 99))))
    limits = data.draw(st.lists(st.integers(0, 60), min_size=count, max_size=count))
    policy = data.draw(st.sampled_from(AT_END))
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
def test_received_and_targets_after_the_loop(work: int) -> None:
    slots = np.zeros(50, np.uint16)
    sources = LoopSources(np.zeros(3, np.int64), np.zeros(3, np.int64), np.full(3, 1 << 60))
    weights = LoopWeights(np.array([[3, 2, 1], [0, 1, 5]]), np.array([20, 0]))
    sizes = LoopSizes(np.ones(3, np.int64), np.zeros(3, np.int64), np.full(3, 1 << 60), True)
    stop = jit_if_large(_fill_slots, work=work)(slots, 0, 50, weights, sources, sizes)
    assert (stop.slot, stop.reason) == (50, StopReason.DONE)
    assert sources.given.tolist() == np.bincount(slots, minlength=3).tolist()
    assert sources.received.tolist() == (6 * sources.given).tolist()
    for given_out, in_second in ((50, 30), (20, 0), (7, 0)):
        wanted = (given_out - in_second) * np.array([3, 2, 1]) + in_second * np.array([0, 1, 5])
        assert _targets(weights, given_out).tolist() == wanted.tolist()
