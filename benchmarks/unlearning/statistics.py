"""Statistics over runs, as Agarwal et al. advise for few runs (rliable, arXiv 2108.13264).

    strata = {"car_run": [.84, .81, ...], "ball_circle": [.66, ...]}     # one list of runs per task
    interquartile_mean(flat(strata))
    interval(strata, interquartile_mean)           # Interval(value, low, high), stratified bootstrap, 95 %
    improvement(ours, theirs)                      # mean over tasks of P(X > Y) + P(X = Y) / 2

Bootstrap samples draw runs with replacement within each task, so that every task keeps its weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Strata = Mapping[str, Sequence[float]]
Statistic = Callable[[np.ndarray], np.ndarray]
"""Of the runs along the last axis."""

SAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A figure with its percentile interval."""

    value: float
    low: float
    high: float


def flat(strata: Strata) -> np.ndarray:
    """Return all runs of all tasks (N,)."""
    return np.concatenate([np.asarray(runs, dtype=np.float64) for runs in strata.values()])


def mean(values: np.ndarray) -> np.ndarray:
    """Return the mean along the last axis."""
    return np.mean(values, axis=-1)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean without the lowest and the highest quarter of the values, along the last axis."""
    return stats.trim_mean(values, 0.25, axis=-1)


def interval(strata: Strata, statistic: Statistic, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Return `statistic` over all runs with its stratified bootstrap interval."""
    random = np.random.default_rng(seed)
    drawn = np.concatenate([_resampled(runs, random) for runs in strata.values()], axis=1)
    return _interval(float(statistic(flat(strata))), statistic(drawn), confidence)


def quotient(
    pairs: Mapping[str, np.ndarray], statistic: Statistic, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Return statistic(x) / statistic(y) over all runs, x and y of the same run: pairs has (N, 2) per task."""
    random = np.random.default_rng(seed)
    drawn = [runs[random.integers(len(runs), size=(SAMPLES, len(runs)))] for runs in pairs.values()]
    upper, lower = np.moveaxis(np.concatenate(drawn, axis=1), 2, 0)
    value = np.divide(*(statistic(column) for column in np.concatenate(list(pairs.values())).T))
    return _interval(float(value), statistic(upper) / statistic(lower), confidence)


def difference(
    pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]], confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Return by how much the mean of the first is above that of the second, averaged over the tasks."""
    random = np.random.default_rng(seed)
    value = np.mean([np.mean(ours) - np.mean(theirs) for ours, theirs in pairs.values()])
    samples = [_resampled(ours, random).mean(1) - _resampled(theirs, random).mean(1) for ours, theirs in pairs.values()]
    return _interval(float(value), np.mean(samples, axis=0), confidence)


def chance_of_more(ours: Sequence[float] | np.ndarray, theirs: Sequence[float] | np.ndarray) -> float:
    """Return P(X > Y) + P(X = Y) / 2 for X of `ours` and Y of `theirs`: the Mann-Whitney statistic, and the AUC."""
    ours, theirs = np.asarray(ours, dtype=np.float64), np.sort(np.asarray(theirs, dtype=np.float64))
    below, up_to = np.searchsorted(theirs, ours, "left"), np.searchsorted(theirs, ours, "right")
    return float((below + up_to).mean() / (2 * len(theirs)))


def improvement(ours: Strata, theirs: Strata, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Return the probability of improvement, averaged over the tasks that both have, with its bootstrap interval."""
    random, shared = np.random.default_rng(seed), [task for task in ours if task in theirs]
    value = float(np.mean([chance_of_more(ours[task], theirs[task]) for task in shared]))
    samples = np.zeros(SAMPLES)
    for task in shared:
        differences = _resampled(ours[task], random)[:, :, None] - _resampled(theirs[task], random)[:, None, :]
        samples += (np.sign(differences).mean(axis=(1, 2)) + 1.0) / 2.0
    return _interval(value, samples / len(shared), confidence)


def profile(strata: Strata, thresholds: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the share of runs above each threshold, and its 95 % band: the performance profile, (T,) each."""
    random = np.random.default_rng(seed)
    drawn = np.concatenate([_resampled(runs, random) for runs in strata.values()], axis=1)
    shares = (drawn[:, :, None] > thresholds).mean(axis=1)
    low, high = np.percentile(shares, [2.5, 97.5], axis=0)
    return (flat(strata)[:, None] > thresholds).mean(axis=0), low, high


def _resampled(runs: Sequence[float], random: np.random.Generator) -> np.ndarray:
    runs = np.asarray(runs, dtype=np.float64)
    return runs[random.integers(len(runs), size=(SAMPLES, len(runs)))]


def _interval(value: float, samples: np.ndarray, confidence: float) -> Interval:
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(samples, [tail, 100.0 - tail])
    return Interval(value, float(low), float(high))
