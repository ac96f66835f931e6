"""When a warning that the model does not look is due."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest

from ocrtrain.run.alarm import ENOUGH_ANSWERS, HALF, LossCurve

DEMO = (
    7.17, 7.07, 6.66, 5.95, 5.32, 4.64, 4.08, 3.53, 3.32, 3.12, 3.02, 2.78, 2.77, 2.66, 2.60,
    2.47, 2.30, 2.23, 2.16, 2.07, 1.92, 1.87, 1.80, 1.74, 1.66, 1.58, 1.58, 1.51, 1.46, 1.42,
    1.31, 1.26, 1.18, 1.23, 1.20, 1.12, 1.15, 1.10, 1.07, 1.09, 0.98, 1.05, 1.06, 1.02, 0.98,
    0.97, 0.97, 0.96, 0.97, 0.96, 0.97, 0.99, 0.99, 0.94, 0.95, 1.04, 0.99, 0.92, 0.89, 0.89,
    0.88, 0.91, 0.91, 0.90, 0.92, 0.88, 0.86, 0.83, 0.87, 0.86, 0.86, 0.87, 0.84, 0.82, 0.88,
    0.89, 0.84, 0.86, 0.84, 0.87, 0.87, 0.82, 0.85, 0.84, 0.84, 0.84, 0.83, 0.78, 0.82, 0.85,
    0.83, 0.84, 0.85, 0.83, 0.86, 0.83, 0.79, 0.79, 0.86, 0.80, 0.83, 0.81, 0.83, 0.82, 0.81,
    0.77, 0.82, 0.79, 0.83, 0.79, 0.78, 0.80, 0.82, 0.80, 0.78, 0.80, 0.82, 0.84, 0.80, 0.79,
    0.80, 0.78, 0.75, 0.78, 0.78, 0.80, 0.75, 0.81, 0.78, 0.81, 0.77, 0.74, 0.78, 0.76, 0.76,
    0.76, 0.72, 0.75, 0.74, 0.75, 0.73, 0.74, 0.72, 0.68, 0.70, 0.71, 0.69, 0.70, 0.67, 0.72,
    0.65, 0.63, 0.65, 0.64, 0.62, 0.64, 0.63, 0.65, 0.64, 0.66, 0.62, 0.67, 0.64, 0.59, 0.64,
    0.65, 0.66, 0.66, 0.65, 0.62, 0.62, 0.64, 0.60, 0.59, 0.62, 0.63, 0.65, 0.61, 0.64, 0.61,
    0.62, 0.59, 0.59, 0.64, 0.64, 0.66, 0.63, 0.62, 0.61, 0.62, 0.63, 0.58, 0.61, 0.62, 0.62,
    0.58, 0.58, 0.58, 0.56, 0.61, 0.60, 0.60, 0.55, 0.61, 0.58, 0.57, 0.61, 0.59, 0.58, 0.59,
    0.60, 0.62, 0.58, 0.58, 0.64, 0.56, 0.61, 0.55, 0.58, 0.55, 0.62, 0.58, 0.56, 0.58, 0.55,
    0.57, 0.54, 0.56, 0.55, 0.56, 0.57, 0.56, 0.55, 0.55, 0.59, 0.56, 0.58, 0.57, 0.55, 0.55,
    0.52, 0.57, 0.55, 0.57, 0.57, 0.61, 0.54, 0.55, 0.56, 0.55, 0.52, 0.57, 0.60, 0.58, 0.59,
    0.52, 0.53, 0.57, 0.58, 0.57, 0.55, 0.56, 0.58, 0.58, 0.54, 0.54, 0.55, 0.59, 0.53, 0.58,
    0.53, 0.57, 0.56, 0.54, 0.56, 0.55, 0.52, 0.55, 0.54, 0.54, 0.55, 0.53, 0.54, 0.51, 0.54,
    0.53, 0.57, 0.55, 0.53, 0.57, 0.55, 0.52, 0.55, 0.56, 0.54, 0.53, 0.53, 0.52, 0.55, 0.55,
    0.55, 0.56, 0.51, 0.51, 0.57, 0.52, 0.55, 0.54, 0.50, 0.52, 0.59, 0.52, 0.51, 0.54, 0.52,
    0.53, 0.56, 0.55, 0.54, 0.53, 0.51, 0.51, 0.53, 0.55, 0.53, 0.51, 0.58, 0.54, 0.52, 0.54,
    0.51, 0.52, 0.50, 0.52, 0.52, 0.52, 0.53, 0.52, 0.52, 0.56, 0.56, 0.53, 0.54, 0.50, 0.54,
    0.54, 0.51, 0.50, 0.52, 0.55, 0.52, 0.51, 0.54, 0.54, 0.53, 0.57, 0.55, 0.51, 0.56, 0.55,
    0.52, 0.56, 0.50, 0.50, 0.52, 0.54, 0.54, 0.52, 0.56, 0.50, 0.51, 0.55, 0.55, 0.52, 0.54,
    0.53, 0.52, 0.50, 0.54, 0.51, 0.54, 0.58, 0.50, 0.53, 0.50, 0.54, 0.50, 0.57, 0.51, 0.51,
    0.55, 0.52, 0.50, 0.59, 0.51, 0.53, 0.57, 0.53, 0.53, 0.50,
)  # fmt: skip
"""Losses of the demo's first stage, a healthy run whose encoder begins to be used at about step 60
(batch 16, a sample has an image; 2026-11-29)."""


def lines(losses: Sequence[float], samples: int = 16) -> list[dict[str, Any]]:
    return [{"train/loss": loss, "train/images": samples, "train/image_samples": samples}
            for loss in losses]  # fmt: skip


def steps_due(losses: Sequence[float], samples: int = 16) -> list[int]:
    """The steps after which a warning is due."""
    curve, due = LossCurve(), []
    for step, line in enumerate(lines(losses, samples)):
        curve.add(line)
        if curve.level() is not None:
            due.append(step)
    return due


def test_a_healthy_run_is_not_told_while_it_learns_to_look() -> None:
    due = steps_due(DEMO)
    assert due and due[0] > 150  # its image gain is 0.27 at step 100, 0.86 at step 200


def test_a_loss_that_stays_where_it_is_is_told_of_within_fifty_steps() -> None:
    """The demo's first 120 steps, which learn the common answers, and then nothing more: what a
    collapsed run does, with its noise."""
    draws = random.Random(2)
    collapsed = [*DEMO[:120], *(0.80 + draws.gauss(0, 0.03) for _ in range(60))]
    due = steps_due(collapsed)
    assert due and 120 <= due[0] < 170


@pytest.mark.parametrize(("steps", "samples"), [(4, 16), (39, 16), (199, 1), (12, 100)])
def test_a_short_run_is_never_told(steps: int, samples: int) -> None:
    assert steps_due([2.0] * steps, samples) == []


def test_the_numbers_are_told() -> None:
    curve = LossCurve()
    curve.remember(lines([3.0] * HALF + [2.96] * HALF, samples=10))
    level = curve.level()
    assert level is not None and level.answers == 20 * HALF >= ENOUGH_ANSWERS
    assert "400 answers" in str(level) and "2.9600" in str(level) and "3.0000" in str(level)


def test_steps_without_images_or_a_loss_are_not_counted() -> None:
    curve = LossCurve()
    for line in lines([2.0] * 40):
        curve.add(line)
        curve.add({**line, "train/images": 0, "train/loss": 9.0})
        curve.add({**line, "train/loss": math.nan})
        curve.add({"val/loss": 9.0})
    level = curve.level()
    assert level is not None
    assert (level.before, level.now, level.answers) == (2.0, 2.0, 640)


def test_an_older_log_counts_images() -> None:
    curve = LossCurve()
    curve.remember([{"train/loss": 2.0, "train/images": 6} for _ in range(40)])
    level = curve.level()
    assert level is not None and level.answers == 240
