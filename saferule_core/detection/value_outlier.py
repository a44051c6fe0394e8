"""Value outlier: observations, actions or rewards that other episodes do not have.

    score = sqrt(mean of the largest tenth of m_t),   m_t = (x_t - mean)' C^-1 (x_t - mean) / d,   x_t = (s_t, a_t, r_t)

Mean and covariance C are cross-fitted: those of the trusted episodes, or of all where none is trusted. Sees triggers,
glitches and gross changes of reward; blind to what is usual, only wrong.
"""

from __future__ import annotations

import numpy as np

from saferule_core.detection.base import Case, Suspicion, detector
from saferule_core.detection.models import FOLDS, episode_folds, robust_scale

LARGEST = 30.0
SHRINKAGE = 0.05
TAIL = 0.1


@detector("value_outlier")
def value_outlier(case: Case) -> Suspicion:
    """Return how far the most unusual steps of each episode are from the others, in standard deviations."""
    data = case.data
    values = np.concatenate([data.observations, data.actions, data.rewards[:, None]], axis=1)
    centre, spread = robust_scale(case, values)
    scaled = np.clip((values - centre) / spread, -LARGEST, LARGEST)
    believed = case.is_trusted if len(case.trusted) > FOLDS else np.ones(data.episode_count, bool)
    folds = episode_folds(case, np.random.default_rng(case.seed))
    distance = np.empty(len(data))
    for fold in range(FOLDS):
        mean, inverse = _moments(scaled[(believed & (folds != fold))[data.episode_index]])
        rows = (folds == fold)[data.episode_index]
        away = scaled[rows] - mean
        distance[rows] = np.einsum("ij,jk,ik->i", away, inverse, away) / scaled.shape[1]
    scores = np.array([_tail_mean(distance[part]) for part in data.episodes()]) ** 0.5
    names = (*(case.feature_names or _numbered("observation", data.obs_dim)),
             *(case.action_names or _numbered("action", data.action_dim)), "reward")  # fmt: skip
    reasons = []
    for row in case.largest(distance):
        column = int(np.argmax(np.abs(scaled[row])))
        reasons.append(f"{names[column]} is {scaled[row, column]:+.1f} spreads off at step {case.step(row)}")
    return Suspicion(scores, tuple(reasons))


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and inverse covariance, shrunk towards its diagonal."""
    covariance = np.cov(values, rowvar=False)
    diagonal = np.diag(np.diag(covariance) + SHRINKAGE)
    return values.mean(axis=0), np.linalg.inv((1.0 - SHRINKAGE) * covariance + SHRINKAGE * diagonal)


def _tail_mean(values: np.ndarray) -> float:
    """Return the mean of the largest tenth of `values`."""
    count = max(1, round(TAIL * len(values)))
    return float(np.partition(values, -count)[-count:].mean())


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name} {index}" for index in range(count))
