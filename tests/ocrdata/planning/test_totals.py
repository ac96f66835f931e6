from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.planning import totals as module
from ocrdata.planning.choices import SHUFFLES
from ocrdata.planning.plan import Plan, PlannedRow, PlanSettings
from ocrdata.planning.totals import SampleSums, compute
from tests.support.measured import made_up
from tests.support.plans import SEQ_LEN, two


def by_hand(plan: Plan, rows: list[PlannedRow]) -> SampleSums:
    """The sums over some rows, sample by sample."""
    total = SampleSums()
    for row in rows:
        for source, position, _ in row:
            found = plan.lengths[source]
            length = int(found.lengths[position])
            lost = np.flatnonzero(found.truncated == position)
            total = total.plus(
                SampleSums(
                    1, length, length**2, int(found.supervised[position]),
                    int(found.images[position]), int(found.bytes[position]), len(lost),
                    int(found.truncated_tokens[lost].sum()), int(found.truncated_turns[lost].sum()),
                    int(found.supervised[position] == 0),
                )
            )  # fmt: skip
    return total


@given(
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    mix_by=st.sampled_from(["batch", "sample"]),
    weigh_by=st.sampled_from(["rows", "samples", "tokens"]),
    pack_window=st.sampled_from([0, 7, 30]),
    too_long=st.sampled_from(["truncate", "drop"]),
    chunk=st.sampled_from([5, 1 << 16]),
    steps=st.integers(1, 40),
    first=st.sampled_from([0, 1, 33]),
    shuffle=st.sampled_from(SHUFFLES),
)  # fmt: skip
def test_totals_equal_the_sums_over_all_rows_of_all_steps(
    sizes: tuple[int, int], mix_by: str, weigh_by: str, pack_window: int, too_long: str,
    chunk: int, steps: int, first: int, shuffle: str,
) -> None:  # fmt: skip
    sources = [replace(source, first_row=first) for source in two(*sizes)]
    settings = PlanSettings(
        batch=4, steps=steps, seed=2, mix_by=mix_by, weigh_by=weigh_by, seq_len=SEQ_LEN,
        too_long=too_long, pack_window=pack_window, row_images=4, shuffle=shuffle,
    )  # fmt: skip
    lengths = [
        made_up(source.size, longest=SEQ_LEN, seed=number, truncated=0.2)
        for number, source in enumerate(sources)
    ]
    try:
        plan = Plan(sources, settings, lengths)
    except ValueError as exc:
        assert "every sample is longer" in str(exc)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        done: list[int] = []
        found = compute(plan, rows_per_pass=2, progress=done.append)
    assert sum(done) == plan.steps
    every = [plan.rows(step) for step in range(plan.steps)]
    for number, source in enumerate(found.sources):
        own = [row for rows in every for row in rows if row[0].source == number]
        assert source.sums == by_hand(plan, own)
        assert source.rows == len(own) == plan.rows_per_source()[number]
    assert found.sums == by_hand(plan, [row for rows in every for row in rows])
    passes = [rows[at : at + 2] for rows in every for at in (0, 2)]
    tokens = [[by_hand(plan, [row]).tokens for row in rows] for rows in passes]
    assert found.positions == sum(2 * max(rows) for rows in tokens)
    assert found.longest == max(map(max, tokens))
    assert found.most_images == max(by_hand(plan, rows).images for rows in passes)
    assert found.padding == pytest.approx(1 - found.sums.tokens / found.positions)
    assert sum(source.planned_fraction for source in found.sources) == pytest.approx(1)


def test_weight_fractions_are_means_over_the_steps() -> None:
    from fractions import Fraction

    sources = [
        replace(source, weight=((0, Fraction(1, 2)), (30, later)))
        for source, later in zip(two(), (Fraction(9, 10), Fraction(1, 10)), strict=True)
    ]
    lengths = [made_up(source.size, longest=SEQ_LEN) for source in sources]
    plan = Plan(sources, PlanSettings(batch=2, steps=40, seed=0), lengths)
    found = compute(plan, rows_per_pass=2)
    assert found.sources[1].weight_fraction == pytest.approx((30 / 2 + 10 / 10) / 40)
    assert found.sources[1].planned_fraction == pytest.approx(
        found.sources[1].weight_fraction, abs=1 / 40
    )
    assert found.sources[0].epochs == found.sources[0].rows / 30
