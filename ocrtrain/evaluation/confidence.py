"""95 % confidence intervals of a mean over answers, of which those to one sample are no independent
trials: questions about one image are right or wrong together.

- Where every value is 0 or 1 and no sample has two, Wilson's score interval (E. B. Wilson, Probable
  inference, the law of succession, and statistical inference, 1927).
- Else the percentile bootstrap over samples: 1,000 times as many samples are drawn, with all their
  values, and the mean is taken over the values drawn; the interval is between the 2.5th and the
  97.5th percentile. The draws are those of one fixed seed.
- Where the bootstrap cannot vary, because all samples score the same, Wilson's interval with one
  trial a sample: ten right answers of ten do not show that every answer is right.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

BOOTSTRAP_SEED = 20_251_020
RESAMPLES = 1_000
Z_95 = 1.959963984540054
"""The 97.5th percentile of the standard normal distribution."""

CHUNK = 1 << 20
"""Draws in memory at a time."""

Values = Mapping[Hashable, Sequence[float]]
"""The values of each sample, by any name of it."""


class Interval(NamedTuple):
    """A mean, the ends of its 95 % interval, the number of values and how the interval was found:
    `wilson` or `bootstrap`."""

    mean: float
    low: float
    high: float
    number: int
    method: str


def interval(values: Values) -> Interval:
    """The mean over all values, and its interval. The values must be between 0 and 1 where the
    bootstrap cannot vary. Raises ValueError without values."""
    return mean_of_strata([values])


def mean_of_strata(strata: Sequence[Values]) -> Interval:
    """The mean over the strata of the means over their values; the bootstrap draws within each.

    One stratum is the plain mean. Raises ValueError without strata or for one without values.
    """
    arrays = [_sums(values) for values in strata]
    if not arrays or not all(len(counts) for _, counts in arrays):
        raise ValueError("no values to average")
    mean = sum(float(sums.sum() / counts.sum()) for sums, counts in arrays) / len(arrays)
    count = int(sum(counts.sum() for _, counts in arrays))
    binary = all(value in (0, 1) for values in strata for one in values.values() for value in one)
    if len(arrays) == 1 and binary and (arrays[0][1] == 1).all():
        return Interval(mean, *wilson(mean, count), count, "wilson")
    means = np.mean([_resampled_means(sums, counts) for sums, counts in arrays], axis=0)
    if np.ptp(means) == 0 and 0 <= mean <= 1:
        samples = sum(len(counts) for _, counts in arrays)
        return Interval(mean, *wilson(mean, samples), count, "wilson")
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(mean, float(low), float(high), count, "bootstrap")


def wilson(share: float, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share seen in a number of trials."""
    z2 = Z_95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = (
        Z_95
        * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials))
        / (1 + z2 / trials)
    )
    return max(0.0, centre - half), min(1.0, centre + half)


Floats = npt.NDArray[np.float64]


def _sums(values: Values) -> tuple[Floats, Floats]:
    """The sum and the number of values of each sample that has any."""
    having = [one for one in values.values() if one]
    sums = np.array([math.fsum(one) for one in having], np.float64)
    return sums, np.array([len(one) for one in having], np.float64)


def _resampled_means(sums: Floats, counts: Floats) -> Floats:
    """The mean of each resample. RandomState's stream is frozen, unlike that of Generator: the
    intervals are the same for every version of numpy."""
    generator = np.random.RandomState(BOOTSTRAP_SEED)
    samples = len(sums)
    means = []
    at_once = max(1, CHUNK // samples)
    for start in range(0, RESAMPLES, at_once):
        rows = min(at_once, RESAMPLES - start)
        drawn = generator.randint(samples, size=(rows, samples))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)
