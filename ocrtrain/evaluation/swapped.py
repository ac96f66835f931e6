"""Which sample is shown which other sample's images, to test whether a model looks at them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from ocrdata.reading.view import Shards

SWAP_EVERY = 3
"""Image gain is measured on every third sample: only a third of the slice needs a second pass."""

SWAP_SEED = 20_251_020
"""Seed of the derangement: independent of the run's seed, so that runs can be compared."""


def swap_partners(
    shards: Shards, positions: Iterable[int], numbers: range | None = None
) -> dict[int, int]:
    """position -> position of the sample whose images it gets: a fixed derangement of the samples
    at `positions`, among those with the same number of images (all images of a run take equal
    slots). Of samples with identical images only the first takes part: a sample that got identical
    images would show no gain. With `numbers`, only these images of each sample count."""
    groups: dict[int, dict[tuple[bytes, ...], int]] = defaultdict(dict)
    for position in positions:
        images = shards.image_digests(position)
        if numbers is not None:
            images = images[numbers.start : numbers.stop]
        if images:
            groups[len(images)].setdefault(images, position)
    partners: dict[int, int] = {}
    for count, members in sorted(groups.items()):
        partners |= derangement(list(members.values()), seed=f"{SWAP_SEED}:{count}")
    return dict(sorted(partners.items()))


def derangement(members: Sequence[int], *, seed: str) -> dict[int, int]:
    """member -> another member, one to one, none to itself (Sattolo's random cycle); {} for fewer
    than two. Depends only on members and seed."""
    generator = random.Random(seed)
    order = list(members)
    for last in range(len(order) - 1, 0, -1):
        # Only random() gives the same numbers in all versions of Python.
        other = int(generator.random() * last)
        order[last], order[other] = order[other], order[last]
    return dict(zip(members, order, strict=True)) if len(order) > 1 else {}
