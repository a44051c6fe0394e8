"""Statistics of a handful of episodes, with the cases in which a formula says more than the data spelled out.

costs = summarise([0.0, 3.0, 1.0, 0.0], confidence=0.95)
costs.mean, costs.upper          # 1.0, 2.66: with 95 % confidence the mean cost is at most 2.66
rate = proportion(violations, episodes, confidence=0.95)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special  # not scipy.stats: its import costs every process most of a second

from saferule_core.errors import DataError


@dataclass(frozen=True)
class Summary:
    """Mean of `count` episodes with one-sided Student t bounds.

    lower, upper: each holds with `confidence` on its own; None for a single episode.
    deviation: standard deviation of the sample; 0.0 for a single episode.
    note: what to keep in mind about the bounds, empty if they can be taken as they are.
    """

    count: int
    mean: float
    deviation: float
    lower: float | None
    upper: float | None
    smallest: float
    largest: float
    confidence: float
    note: str = ""


@dataclass(frozen=True)
class Proportion:
    """`hits` of `count` with one-sided Clopper-Pearson bounds, each at `confidence`; exact for every count."""

    hits: int
    count: int
    rate: float
    lower: float
    upper: float
    confidence: float


def check_confidence(confidence: float) -> float:
    """Return `confidence` if it lies strictly between 0.5 and 1.

    Raises:
        DataError: it does not; at 0.5 and below, the upper bound of a mean would be the mean or less.
    """
    if not 0.5 < confidence < 1.0:
        raise DataError(f"confidence: expected a number between 0.5 and 1, found {confidence}")
    return confidence


def summarise(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Summary:
    """Return mean, spread and one-sided bounds of `values` (N,).

    Raises:
        DataError: there are no values, one is not finite, or the confidence is out of range.
    """
    check_confidence(confidence)
    sample = np.asarray(values, dtype=np.float64).reshape(-1)
    if len(sample) == 0:
        raise DataError("statistics: expected at least one episode, found none")
    if not np.isfinite(sample).all():
        raise DataError(f"statistics: expected finite numbers, found {sample[~np.isfinite(sample)][0]}")
    count, mean, note = len(sample), float(sample.mean()), ""
    margin: float | None
    deviation = float(sample.std(ddof=1)) if count > 1 else 0.0
    if count == 1:
        margin, note = None, "a single episode says nothing about the spread, so there is no bound"
    elif sample.min() == sample.max():
        mean, deviation, margin = float(sample[0]), 0.0, 0.0
        share = 1.0 - (1.0 - confidence) ** (1.0 / count)
        note = (
            f"all {count} episodes gave {mean:g}, so the bound is the mean itself; up to {share:.0%} of all episodes "
            "could still differ without one of them being among these"
        )
    else:
        margin = float(special.stdtrit(count - 1, confidence)) * deviation / math.sqrt(count)
    return Summary(
        count=count,
        mean=mean,
        deviation=deviation,
        lower=None if margin is None else mean - margin,
        upper=None if margin is None else mean + margin,
        smallest=float(sample.min()),
        largest=float(sample.max()),
        confidence=confidence,
        note=note,
    )


def paired_difference(before: Sequence[float], after: Sequence[float], confidence: float = 0.95) -> Summary:
    """Return the summary of `after` - `before` (N,), episode by episode.

    Pairs share their start, so the difference varies less than the two means do.

    Raises:
        DataError: the two have different lengths, or `summarise` refuses the differences.
    """
    if len(before) != len(after):
        raise DataError(f"statistics: expected pairs, found {len(before)} episodes before and {len(after)} after")
    return summarise(np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64), confidence)


def proportion(hits: int, count: int, confidence: float = 0.95) -> Proportion:
    """Return the rate of `hits` in `count` with Clopper-Pearson bounds.

    Raises:
        DataError: `hits` does not lie in [0, `count`], or `count` is not positive.
    """
    check_confidence(confidence)
    if count < 1 or not 0 <= hits <= count:
        raise DataError(f"statistics: expected 0 <= hits <= count and count >= 1, found {hits} of {count}")
    lower = float(special.betaincinv(hits, count - hits + 1, 1.0 - confidence)) if hits > 0 else 0.0
    upper = float(special.betaincinv(hits + 1, count - hits, confidence)) if hits < count else 1.0
    return Proportion(hits, count, hits / count, lower, upper, confidence)
