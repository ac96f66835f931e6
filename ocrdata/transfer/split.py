"""Splits samples into parts of which no two have an image in common.

Samples that share an image, directly or through others, are a group, and a group is in one part
only. Large groups have their turn first, groups of one size in an order that depends on the seed
and on their content alone. Each goes to the part that is furthest behind its fraction among those
that it still fits into; one that fits nowhere, to the part that lacks most. So every part gets its
fraction of groups of every size, and fractions are exact but for one sample where single samples
are left for the end.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import xxhash

from ocrdata.errors import UsageError
from ocrdata.shards.arrow import Int64

SPLIT_RULE = "image-groups-1"
"""Recorded in the provenance: another rule needs another name."""


@dataclass(frozen=True)
class Parts:
    """The names of the parts and their fractions of the samples, which add up to 1."""

    fractions: Mapping[str, Fraction]

    @staticmethod
    def parse(text: str) -> Parts:
        """'train=0.98,val=0.02' or 'a=2/3,b=1/3'. Raises UsageError."""
        found: dict[str, Fraction] = {}
        for item in text.split(","):
            name, equals, value = item.strip().partition("=")
            if not equals or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise UsageError(
                    f"--split {text}: {item.strip()!r} is not NAME=FRACTION, as in train=0.98"
                )
            if name in found:
                raise UsageError(f"--split {text}: {name} is given twice")
            try:
                found[name] = Fraction(value.strip())
            except (ValueError, ZeroDivisionError):
                found[name] = Fraction(0)
            if not 0 < found[name] < 1:
                raise UsageError(
                    f"--split {text}: the fraction of {name}, {value.strip()!r}, is not a number "
                    "between 0 and 1"
                )
        if (total := sum(found.values())) != 1:
            raise UsageError(f"--split {text}: the fractions add up to {float(total):g}, not to 1")
        return Parts(found)

    def __str__(self) -> str:
        return ",".join(f"{name}={value}" for name, value in self.fractions.items())


def groups_of(samples: int, owners: Int64, digests: Int64) -> Int64:
    """The group of each sample, as the number of its first sample. Shape: [samples].

    Content n (an image, or the text of a sample without images) belongs to sample `owners[n]` and
    has the digest `digests[n]`. Of a digest 64 bits are enough: if those of two images were equal,
    two groups would be one.
    """
    parents = array("q", range(samples))

    def root(at: int) -> int:
        while parents[at] != at:
            parents[at] = at = parents[parents[at]]
        return at

    order = np.lexsort((owners, digests))
    repeated = np.flatnonzero(digests[order][1:] == digests[order][:-1])
    for at in repeated.tolist():
        one, other = root(int(owners[order[at]])), root(int(owners[order[at + 1]]))
        parents[max(one, other)] = min(one, other)
    return np.fromiter(map(root, range(samples)), np.int64, samples)


def split(samples: int, owners: Int64, digests: Int64, parts: Parts, seed: int) -> Int64:
    """The number of the part of each sample; contents as for `groups_of`. Shape: [samples].

    The smallest digest of a group and the seed decide its turn among groups of its size.
    """
    starts, of_group = np.unique(groups_of(samples, owners, digests), return_inverse=True)
    sizes = np.bincount(of_group, minlength=len(starts))
    smallest = np.full(len(starts), np.iinfo(np.int64).max)
    np.minimum.at(smallest, of_group[owners], digests)
    keys = (f"{SPLIT_RULE}/{seed}/{digest}".encode() for digest in smallest)
    turns = np.fromiter(map(xxhash.xxh3_64_intdigest, keys), np.uint64, len(starts))
    order = np.lexsort((turns, -sizes))
    chosen = np.empty(len(starts), np.int64)
    chosen[order] = np.fromiter(_parts_in_turn(sizes[order], parts), np.int64, len(order))
    return chosen[of_group]


def _parts_in_turn(sizes: Int64, parts: Parts) -> Iterator[int]:
    """The part of each group of these sizes."""
    # In whole numbers: fractions of the samples, times their common denominator.
    fractions = list(parts.fractions.values())
    scale = math.lcm(*(fraction.denominator for fraction in fractions))
    weights = [int(fraction * scale) for fraction in fractions]
    total = int(sizes.sum())
    lacking = [weight * total for weight in weights]
    seen, counts = 0, [0] * len(weights)
    for size in map(int, sizes):
        seen += size
        fitting = [part for part, lacks in enumerate(lacking) if lacks >= size * scale]
        if fitting:
            part = max(fitting, key=lambda one: weights[one] * seen - counts[one] * scale)
        else:
            part = max(range(len(lacking)), key=lacking.__getitem__)
        counts[part] += size
        lacking[part] -= size * scale
        yield part
