"""Which sample gets which other sample's images: the control that shows whether a model looks."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from ocrdata.reading.view import Shards

SWAP_EVERY = 3
"""Image gain is measured on every third sample: a second forward pass for a third of the slice."""


SWAP_SEED = 20_251_020
"""Of the derangement: always the same, whatever the run's seed, so that runs can be compared."""


def swap_partners(shards: Shards) -> dict[int, int]:
    """position -> the position whose images it gets: a fixed derangement among every third
    sample, within those of as many images (all views of a run have equal slots). Of samples with
    the same images the first alone takes part: who gets its own images back gains nothing."""
    groups: dict[int, dict[tuple[bytes, ...], int]] = defaultdict(dict)
    for position in range(0, len(shards), SWAP_EVERY):
        images = shards.image_digests(position)
        if images:
            groups[len(images)].setdefault(images, position)
    partners: dict[int, int] = {}
    for count, members in sorted(groups.items()):
        partners |= derangement(list(members.values()), seed=f"{SWAP_SEED}:{count}")
    return dict(sorted(partners.items()))


def derangement(members: Sequence[int], *, seed: str) -> dict[int, int]:
    """member -> another member, one to one, none to itself (Sattolo's random cycle); {} for
    fewer than two. A function of members and seed."""
    generator = random.Random(seed)
    order = list(members)
    for last in range(len(order) - 1, 0, -1):
        # Only random() is the same in all versions of Python.
        other = int(generator.random() * last)
        order[last], order[other] = order[other], order[last]
    return dict(zip(members, order, strict=True)) if len(order) > 1 else {}
