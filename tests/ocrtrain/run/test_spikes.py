"""A spike is a loss far above earlier ones of the same sources."""

from __future__ import annotations

import random

from ocrtrain.run.spikes import ENOUGH, Spikes


def steady(spikes: Spikes, sources: list[str], middle: float, count: int = 60) -> None:
    pick = random.Random(3)
    for _ in range(count):
        assert spikes.height(sources, pick.gauss(middle, 0.05)) is None


def test_a_loss_far_above_the_others_is_a_spike() -> None:
    spikes = Spikes()
    steady(spikes, ["charts"], 2.0)
    height = spikes.height(["charts"], 5.0)
    assert height is not None and height > 20
    assert spikes.height(["charts"], 2.1) is None


def test_a_loss_far_below_is_not_a_spike() -> None:
    spikes = Spikes()
    steady(spikes, ["charts"], 2.0)
    assert spikes.height(["charts"], 0.1) is None


def test_each_set_of_sources_is_judged_by_itself() -> None:
    spikes = Spikes()
    steady(spikes, ["charts"], 2.0)
    steady(spikes, ["chats"], 6.0)
    assert spikes.height(["chats"], 6.1) is None
    assert spikes.height(["charts"], 6.1) is not None
    assert spikes.height(["charts", "chats"], 60.0) is None  # the first batch of both


def test_the_first_losses_are_never_spikes() -> None:
    spikes = Spikes()
    for number in range(ENOUGH):
        assert spikes.height(["charts"], 10.0**number % 997) is None


def test_a_falling_loss_is_not_a_spike() -> None:
    spikes = Spikes()
    for step in range(500):
        assert spikes.height(["charts"], 8.0 / (1 + step / 50)) is None


def test_a_resumed_run_remembers_logged_losses() -> None:
    spikes = Spikes()
    lines: list[dict[str, float]] = [
        {"train/loss": 2.0 + n % 3 / 50, "mix/charts_share": 1.0, "mix/chats_share": 0.0}
        for n in range(40)
    ]
    spikes.remember([*lines, {"val/loss": 99.0}])
    assert spikes.height(["charts"], 4.0) is not None
    assert spikes.height(["chats"], 4.0) is None
