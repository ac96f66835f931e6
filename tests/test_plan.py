from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocrdata.errors import UsageError
from ocrdata.plan import Place, Plan, PlanSource


def two(vision: int = 30, text: int = 20) -> list[PlanSource]:
    return [
        PlanSource("vision", vision, Fraction(18, 28)),
        PlanSource("text", text, Fraction(10, 28)),
    ]


def drawn(plan: Plan, source: int) -> list[Place]:
    places = [place for step in range(plan.steps) for place in plan.places(step)]
    return [place for place in places if place.source == source]


@given(
    vision=st.integers(1, 40),
    text=st.integers(1, 40),
    batch=st.integers(1, 7),
    mix_by=st.sampled_from(["batch", "sample"]),
)
def test_every_epoch_takes_each_sample_once(
    vision: int, text: int, batch: int, mix_by: str
) -> None:
    plan = Plan(two(vision, text), batch=batch, steps=40, seed=5, mix_by=mix_by)
    for source, size in enumerate((vision, text)):
        places = drawn(plan, source)
        assert len(places) == plan.rows_per_source()[source]
        for number in range(0, len(places) - size + 1, size):
            epoch = places[number : number + size]
            assert {place.position for place in epoch} == set(range(size))
            assert {place.epoch for place in epoch} == {number // size}


def test_a_batch_is_a_function_of_the_plan_and_the_step() -> None:
    plan, again = (Plan(two(), batch=4, steps=50, seed=1) for _ in range(2))
    forwards = [plan.places(step) for step in range(50)]
    backwards = [again.places(step) for step in reversed(range(50))]
    assert forwards == backwards[::-1]


def test_batches_hold_one_source_by_default_and_several_on_request() -> None:
    by_batch = Plan(two(), batch=4, steps=28, seed=1)
    assert all(len({p.source for p in by_batch.places(step)}) == 1 for step in range(28))
    by_sample = Plan(two(), batch=28, steps=3, seed=1, mix_by="sample")
    for step in range(3):
        assert Counter(p.source for p in by_sample.places(step)) == {0: 18, 1: 10}


def test_another_source_beside_it_does_not_change_a_sources_order() -> None:
    alone = Plan(two()[:1], batch=1, steps=30, seed=1)
    mixed = Plan(two(), batch=1, steps=100, seed=1)
    assert drawn(alone, 0) == drawn(mixed, 0)[:30]


def test_the_recipe_says_all() -> None:
    recipe = Plan(two(), batch=4, steps=50, seed=1).recipe()
    assert recipe["sources"][1]["weight"] == "5/14"
    assert (recipe["order"], recipe["mix"]) == ("feistel-1", "deadline-1")


@pytest.mark.parametrize("step", [-1, 50])
def test_steps_outside(step: int) -> None:
    with pytest.raises(IndexError, match="of a plan of 50 steps"):
        Plan(two(), batch=4, steps=50, seed=1).places(step)


def test_mistakes() -> None:
    with pytest.raises(UsageError, match="at least one source"):
        Plan([], batch=1, steps=1, seed=0)
    with pytest.raises(UsageError, match="same name"):
        Plan(two()[:1] * 2, batch=1, steps=1, seed=0)
    with pytest.raises(UsageError, match=r"text .* holds no samples"):
        Plan(two(text=0), batch=1, steps=1, seed=0)
    with pytest.raises(UsageError, match="at least 1"):
        Plan(two(), batch=0, steps=1, seed=0)
    with pytest.raises(UsageError, match="'row' is none of batch, sample"):
        Plan(two(), batch=1, steps=1, seed=0, mix_by="row")
