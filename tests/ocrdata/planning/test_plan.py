from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import UsageError
from ocrdata.planning.choices import SHUFFLES, Weight
from ocrdata.planning.lengths import SampleLengths
from ocrdata.planning.plan import Plan, PlanSettings, PlanSource, SampleIndex
from tests.support.measured import made_up
from tests.support.plans import SEQ_LEN, even_blocks, two


def made_up_lengths(sources: list[PlanSource], truncated: float = 0.0) -> list[SampleLengths]:
    return [
        made_up(source.size, longest=SEQ_LEN, seed=number, truncated=truncated)
        for number, source in enumerate(sources)
    ]


def make(
    sources: list[PlanSource] | None = None, *, batch: int = 4, steps: int = 50, seed: int = 1,
    **values: object,
) -> Plan:  # fmt: skip
    sources = two() if sources is None else sources
    settings = PlanSettings(batch=batch, steps=steps, seed=seed, seq_len=SEQ_LEN, row_images=9)
    return Plan(sources, replace(settings, **values), made_up_lengths(sources))  # type: ignore[arg-type]


def drawn(plan: Plan, source: int) -> list[SampleIndex]:
    samples = [sample for step in range(plan.steps) for row in plan.rows(step) for sample in row]
    return [sample for sample in samples if sample.source == source]


mixes = st.sampled_from(["batch", "sample"])
weighs = st.sampled_from(["rows", "samples", "tokens"])
packs = st.sampled_from([0, 7, 30])
shuffles = st.sampled_from(SHUFFLES)


@given(
    vision=st.integers(1, 40), text=st.integers(1, 40), batch=st.integers(1, 7), mix_by=mixes,
    weigh_by=weighs, shuffle=shuffles,
)  # fmt: skip
def test_every_epoch_takes_each_sample_once(
    vision: int, text: int, batch: int, mix_by: str, weigh_by: str, shuffle: str
) -> None:
    plan = make(
        two(vision, text), batch=batch, steps=40, mix_by=mix_by, weigh_by=weigh_by, shuffle=shuffle
    )
    for source, size in enumerate((vision, text)):
        samples = drawn(plan, source)
        assert len(samples) == plan.rows_per_source()[source]
        for number in range(0, len(samples) - size + 1, size):
            epoch = samples[number : number + size]
            assert {sample.position for sample in epoch} == set(range(size))
            assert {sample.epoch for sample in epoch} == {number // size}


@given(
    vision=st.integers(1, 40), batch=st.integers(1, 5), mix_by=mixes, weigh_by=weighs,
    pack_window=st.sampled_from([7, 30]), at_end=st.sampled_from(["repeat", "stop", "move"]),
    shuffle=shuffles,
)  # fmt: skip
def test_packing_neither_loses_nor_repeats_samples(
    vision: int, batch: int, mix_by: str, weigh_by: str, pack_window: int, at_end: str, shuffle: str
) -> None:
    try:
        plan = make(
            two(vision, 20), batch=batch, steps=30, mix_by=mix_by, weigh_by=weigh_by,
            pack_window=pack_window, at_end=at_end, shuffle=shuffle,
        )  # fmt: skip
    except UsageError as exc:
        assert "ends before the first batch is full" in str(exc)
        return
    for source, size in enumerate((vision, 20)):
        counts = Counter((sample.position, sample.epoch) for sample in drawn(plan, source))
        assert set(counts.values()) <= {1}
        # All epochs but the last are complete; a run may end in the middle of that one.
        last = max((epoch for _, epoch in counts), default=0)
        for epoch in range(last):
            assert sum(found == epoch for _, found in counts) == size
        if at_end != "repeat":
            assert last == 0
    for step in range(plan.steps):
        for row in plan.rows(step):
            lengths = [int(plan.lengths[p.source].lengths[p.position]) for p in row]
            assert sum(lengths) <= SEQ_LEN
            assert len({sample.source for sample in row}) == 1


@given(
    pack_window=packs, mix_by=mixes, weigh_by=weighs, world=st.sampled_from([1, 2, 4]),
    shuffle=shuffles,
)  # fmt: skip
def test_a_batch_is_a_function_of_the_plan_and_the_step(
    pack_window: int, mix_by: str, weigh_by: str, world: int, shuffle: str
) -> None:
    plan, again = (
        make(steps=25, pack_window=pack_window, mix_by=mix_by, weigh_by=weigh_by, shuffle=shuffle)
        for _ in range(2)
    )
    forwards = [plan.rows(step) for step in range(25)]
    each = 4 // world
    backwards = [
        [row for rank in range(world)
         for row in again.rows(step, range(rank * each, (rank + 1) * each))]
        for step in reversed(range(25))
    ]  # fmt: skip
    assert forwards == backwards[::-1]


@given(weights=st.lists(st.integers(1, 9), min_size=2, max_size=4), mix_by=mixes,
       pack_window=packs, weigh_by=weighs)  # fmt: skip
def test_no_source_is_more_than_a_batch_from_its_target(
    weights: list[int], mix_by: str, pack_window: int, weigh_by: str
) -> None:
    sources = [PlanSource(f"s{n}", 40 + n, Fraction(w)) for n, w in enumerate(weights)]
    plan = make(sources, steps=40, mix_by=mix_by, pack_window=pack_window, weigh_by=weigh_by)
    given_out, largest, total = np.zeros(len(weights)), 0.0, 0.0
    for step in range(plan.steps):
        rows = plan.rows(step)
        units = [_units(plan, row, weigh_by) for row in rows]
        for row, unit in zip(rows, units, strict=True):
            given_out[row[0].source] += unit
        largest, total = max(largest, sum(units)), total + sum(units)
        targets = np.array(weights) / sum(weights) * total
        assert np.abs(given_out - targets).max() <= largest + 1e-6


def _units(plan: Plan, row: tuple[SampleIndex, ...], weigh_by: str) -> int:
    if weigh_by == "rows":
        return 1
    if weigh_by == "samples":
        return len(row)
    return sum(int(plan.lengths[sample.source].lengths[sample.position]) for sample in row)


def test_batches_hold_one_source_by_default_and_several_on_request() -> None:
    by_batch = make(steps=28)
    assert all(len({p[0].source for p in by_batch.rows(step)}) == 1 for step in range(28))
    by_sample = make(batch=28, steps=3, mix_by="sample")
    for step in range(3):
        assert Counter(row[0].source for row in by_sample.rows(step)) == {0: 18, 1: 10}


def test_weights_that_change_at_a_step() -> None:
    def weights(first: Fraction, later: Fraction) -> Weight:
        return ((0, first), (100, later))

    half, tenth = Fraction(1, 2), Fraction(1, 10)
    sources = [
        PlanSource("vision", 30, weights(half, 1 - tenth)),
        PlanSource("text", 20, weights(half, tenth)),
    ]
    for mix_by in ("batch", "sample"):
        plan = make(sources, steps=200, mix_by=mix_by)
        text = [sum(row[0].source for row in plan.rows(step)) / plan.batch for step in range(200)]
        assert sum(text[:100]) == pytest.approx(50, abs=1)
        assert sum(text[100:]) == pytest.approx(10, abs=1)


def test_stop_ends_the_run_with_the_first_source_that_ends() -> None:
    plan = make(two(30, 20), batch=4, steps=50, at_end="stop")
    text = [step for step in range(plan.steps) if plan.rows(step)[0][0].source]
    assert len(text) == 5 or len(drawn(plan, 0)) == 28
    assert plan.steps < 50 and plan.ended_by in (0, 1)
    assert max(Counter(drawn(plan, plan.ended_by)).values()) == 1


def test_move_continues_with_the_other_sources() -> None:
    plan = make(two(40, 8), batch=4, steps=50, at_end="move")
    assert plan.rows_per_source() == [40, 8]
    assert plan.steps == 12
    assert Counter(sample.position for sample in drawn(plan, 0)) == Counter(range(40))


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_samples_that_are_too_long_are_dropped_on_request(shuffle: str) -> None:
    sources = two()
    found = made_up_lengths(sources, truncated=0.3)
    settings = PlanSettings(
        batch=4, steps=50, seed=1, seq_len=SEQ_LEN, too_long="drop", shuffle=shuffle
    )
    plan = Plan(sources, settings, found)
    for source in range(2):
        long = set(np.flatnonzero(found[source].untruncated > SEQ_LEN).tolist())
        kept = set(range(sources[source].size)) - long
        assert long and {sample.position for sample in drawn(plan, source)} == kept
    everything = replace(
        found[0],
        truncated=np.arange(30),
        truncated_tokens=np.full(30, 99, np.int32),
        truncated_turns=np.zeros(30, np.int32),
    )
    with pytest.raises(UsageError, match=r"vision: .* longer than --seq-len 60"):
        Plan(sources, settings, [everything, found[1]])


def test_the_order_of_a_source_does_not_depend_on_other_sources() -> None:
    alone = make(two()[:1], batch=1, steps=30)
    mixed = make(two(), batch=1, steps=100)
    assert drawn(alone, 0) == drawn(mixed, 0)[:30]


def test_the_json_of_a_plan_has_its_settings_and_algorithms() -> None:
    found = make(pack_window=16).to_json()
    assert found["sources"][1]["weights"] == [[0, "5/14"]]
    assert (found["order"], found["mix"], found["packing"]) == (
        "feistel-1", "deadline-3", "best-fit-2",
    )  # fmt: skip
    assert (found["pack_window"], found["seq_len"], found["weigh_by"]) == (16, 60, "rows")


def test_the_json_of_a_plan_names_its_order() -> None:
    found = {shuffle: make(shuffle=shuffle).to_json() for shuffle in SHUFFLES}
    orders = {shuffle: value["order"] for shuffle, value in found.items()}
    assert orders == {"full": "feistel-1", "blocks": "feistel-blocks-1", "none": "sequential-1"}
    sizes = [[(one.get("block"), one.get("window")) for one in value["sources"]]
             for value in found.values()]  # fmt: skip
    assert sizes == [[(None, None)] * 2, [(2, 6)] * 2, [(None, None)] * 2]
    assert not any("shuffle" in value for value in found.values())


def test_a_plan_of_a_full_permutation_never_changes() -> None:
    """The digest that the code before the order by blocks computed: its runs are resumed."""
    plan = make(pack_window=16)
    assert plan.digest == "3e0e44ba27af347b81816fa6c393f0c0"
    assert list(plan.to_json()) == [
        "version", "order", "mix", "packing", "batch", "steps", "seed", "mix_by", "weigh_by",
        "at_end", "seq_len", "too_long", "pack_window", "row_images", "sources",
    ]  # fmt: skip
    assert set(plan.to_json()["sources"][0]) == {
        "name", "size", "weights", "spec", "digest", "lengths",
    }  # fmt: skip


def test_blocks_and_windows_are_part_of_a_plan() -> None:
    sizes = [(2, 6), (4, 6), (2, 8), (2, 6)]
    plans = [
        make([replace(one, blocks=even_blocks(one.size, *size)) for one in two()], shuffle="blocks")
        for size in sizes
    ]
    assert len({plan.digest for plan in plans}) == 3
    assert plans[0].digest == plans[3].digest != make().digest


@pytest.mark.parametrize("shuffle", ["blocks", "none"])
def test_blocks_are_needed_and_of_the_same_samples(shuffle: str) -> None:
    for blocks in (None, even_blocks(29)):
        with pytest.raises(ValueError, match=rf"'{shuffle}' of vision .*\b30 samples"):
            make([replace(one, blocks=blocks) for one in two()], shuffle=shuffle)


@pytest.mark.parametrize("step", [-1, 50])
def test_a_step_outside_the_plan_is_an_error(step: int) -> None:
    with pytest.raises(IndexError, match=rf"step {step} .* 50 steps"):
        make().rows(step)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mix_by": "x"}, "mix_by 'x'.* batch, sample$"),
        ({"weigh_by": "x"}, "weigh_by 'x'.* rows, samples, tokens$"),
        ({"at_end": "x"}, "at_end 'x'.* repeat, stop, move$"),
        ({"too_long": "x"}, "too_long 'x'.* truncate, drop, error$"),
        ({"shuffle": "x"}, "shuffle 'x'.* full, blocks, none$"),
        ({"batch": 0}, r"batch \(0\) .* at least 1$"),
        ({"steps": 0}, r"steps \(0\) .* at least 1$"),
        ({"pack_window": 5, "row_images": 0}, r"--row-images .*at least 1 \(not 0\)"),
        ({"pack_window": 5, "seq_len": 1}, r"--seq-len .*at least 2 \(not 1\)"),
    ],
)
def test_invalid_settings(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(**values)  # type: ignore[arg-type]


def test_invalid_sources() -> None:
    with pytest.raises(UsageError, match="at least one source"):
        make([])
    with pytest.raises(UsageError, match="same name: vision, vision"):
        make(two()[:1] * 2)
    with pytest.raises(UsageError, match=r"source a .* no samples"):
        Plan([PlanSource("a", 0, Fraction(1))], PlanSettings(1, 1, 0))
    with pytest.raises(UsageError, match=r"source a: .* step 0$"):
        make([PlanSource("a", 3, ((1, Fraction(1)),))])
    with pytest.raises(UsageError, match=r"step 5 .* weights are 0"):
        make([PlanSource("a", 3, ((0, Fraction(1)), (5, Fraction(0))))])
    with pytest.raises(UsageError, match=r"source text .* first batch .*--at-end"):
        make([PlanSource("text", 3, Fraction(1))], at_end="stop")
    with pytest.raises(ValueError, match="lengths of the samples"):
        Plan(two(), PlanSettings(1, 1, 0, pack_window=5, seq_len=9, row_images=1))


def test_row_numbers_of_each_source_rise_by_one_across_blocks() -> None:
    plan = make(two(300, 200), batch=100, steps=120, mix_by="sample")
    seen = Counter[int]()
    for step in range(120):
        for source, row in plan.row_numbers(step):
            assert row == seen[source]
            seen[source] += 1


def test_the_digest_includes_lengths_only_if_rows_depend_on_them() -> None:
    """Another tokenizer or image size packs rows differently: that is another plan."""
    sources = [PlanSource("a", 40, ((0, Fraction(1)),), "a.tar", "x")]
    found = {}
    for window in (0, 16):
        settings = PlanSettings(
            batch=2, steps=5, seed=0, seq_len=SEQ_LEN, pack_window=window, row_images=9
        )
        plans = [Plan(sources, settings, [made_up(40, longest=SEQ_LEN, seed=n)]) for n in (0, 1)]
        found[window] = {plan.digest for plan in plans}
        assert {source["lengths"] == "" for source in plans[0].to_json()["sources"]} == {not window}
    assert (len(found[0]), len(found[16])) == (1, 2)


@given(
    vision=st.integers(1, 40), batch=st.integers(1, 5), mix_by=mixes, weigh_by=weighs,
    pack_window=packs, at_end=st.sampled_from(["repeat", "stop", "move"]), shuffle=shuffles,
    steps=st.integers(1, 30), more=st.integers(1, 30), change=st.integers(1, 40),
)  # fmt: skip
def test_a_longer_plan_begins_with_the_same_rows(
    vision: int, batch: int, mix_by: str, weigh_by: str, pack_window: int, at_end: str,
    shuffle: str, steps: int, more: int, change: int,
) -> None:  # fmt: skip
    """What --extend relies on."""
    weights: Weight = ((0, Fraction(3, 7)), (change, Fraction(1, 5)))
    sources = [replace(two(vision)[0], weight=weights), two(vision)[1]]
    values = {"batch": batch, "mix_by": mix_by, "weigh_by": weigh_by, "at_end": at_end}
    values |= {"pack_window": pack_window, "shuffle": shuffle}
    try:
        short = make(sources, steps=steps, **values)  # type: ignore[arg-type]
    except UsageError as exc:
        assert "ends before the first batch is full" in str(exc)
        return
    long = make(sources, steps=steps + more, **values)  # type: ignore[arg-type]
    assert long.steps >= short.steps
    for step in range(short.steps):
        assert long.rows(step) == short.rows(step)


@given(
    vision=st.integers(1, 40), batch=st.integers(1, 5), mix_by=mixes, pack_window=packs,
    first=st.tuples(st.integers(0, 15), st.integers(0, 15)), shuffle=shuffles,
)  # fmt: skip
def test_a_plan_may_begin_after_rows_drawn_earlier(
    vision: int, batch: int, mix_by: str, pack_window: int, first: tuple[int, int], shuffle: str
) -> None:
    """It has the rows that follow them, by source, and says so in its recipe if there are any."""
    values = {"batch": batch, "mix_by": mix_by, "pack_window": pack_window, "shuffle": shuffle}
    sources = [
        replace(source, first_row=row) for source, row in zip(two(vision), first, strict=True)
    ]
    later = make(sources, steps=6, **values)  # type: ignore[arg-type]
    whole = make(two(vision), steps=50, **values)  # type: ignore[arg-type]
    for number, row in enumerate(first):
        planned = [one for step in range(50) for one in whole.rows(step) if one[0][0] == number]
        found = [one for step in range(6) for one in later.rows(step) if one[0][0] == number]
        known = planned[row : row + len(found)]
        assert found[: len(known)] == known
        assert later.to_json()["sources"][number].get("first_row", 0) == row
    plain = [*two(vision)]
    assert "first_row" not in make(plain, **values).to_json()["sources"][0]  # type: ignore[arg-type]
