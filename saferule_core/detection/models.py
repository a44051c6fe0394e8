"""Cross-fitted predictions: what models that never saw an episode expect at its steps.

    expected = cross_fitted(case, inputs, targets)          # (N, inputs), (N, k) -> (N, k)

Ridge regression on fixed random features, with its closed form: episodes are dealt into folds, and each fold is
predicted by a model of the others. Nothing is learned by gradients, so that the residual of an honest episode is the
robot's noise and not the optimiser's. Trusted episodes weigh as much as all others together, and are dealt into the
folds likewise, so that a trusted episode is judged exactly as an unknown one is.
"""

from __future__ import annotations

import numpy as np

from saferule_core.detection.base import Case

FOLDS = 3
FEATURES = 200
FITTED_ROWS = 20_000
PENALTY = 1e-2
CLIP = 6.0
TRUSTED_SHARE = 0.5
SMALLEST_SPREAD = 1e-6


def cross_fitted(case: Case, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return out-of-fold predictions of `targets` (N, k) from `inputs` (N, d): (N, k) float32."""
    random = np.random.default_rng(case.seed)
    folds = episode_folds(case, random)[case.data.episode_index]
    features = random_features(case, inputs, random)
    centre, spread = robust_scale(case, targets)
    wanted = np.clip((targets - centre) / spread, -4 * CLIP, 4 * CLIP).astype(np.float32)
    grams, moments = [], []
    weights = row_weights(case)
    for fold in range(FOLDS):
        rows = np.flatnonzero(folds == fold)[:: stride(case)]
        weighted = features[rows] * weights[rows, None]
        grams.append((weighted.T @ features[rows]).astype(np.float64))
        moments.append((weighted.T @ wanted[rows]).astype(np.float64))
    expected = np.empty_like(wanted)
    for fold in range(FOLDS):
        gram, moment = sum(grams) - grams[fold], sum(moments) - moments[fold]
        penalty = PENALTY * np.trace(gram) / len(gram)
        solved = np.linalg.solve(gram + penalty * np.eye(len(gram)), moment).astype(np.float32)
        rows = folds == fold
        expected[rows] = features[rows] @ solved
    return expected * spread.astype(np.float32) + centre.astype(np.float32)


def episode_folds(case: Case, random: np.random.Generator) -> np.ndarray:
    """Deal the episodes into `FOLDS` folds, trusted ones and others evenly: (E,) int64."""
    folds = np.empty(case.data.episode_count, np.int64)
    for group in (case.trusted, np.flatnonzero(~case.is_trusted)):
        folds[random.permutation(group)] = np.arange(len(group)) % FOLDS
    return folds


def row_weights(case: Case) -> np.ndarray:
    """Return the weight of each row in a fit: (N,) float32, with sum 1."""
    trusted = case.is_trusted[case.data.episode_index]
    if not trusted.any() or trusted.all():
        return np.full(len(trusted), 1.0 / len(trusted), np.float32)
    share = np.where(trusted, TRUSTED_SHARE / trusted.sum(), (1.0 - TRUSTED_SHARE) / (~trusted).sum())
    return share.astype(np.float32)


def stride(case: Case) -> int:
    """Return how many rows to step on by, so that a fit sees about `FITTED_ROWS`."""
    return max(1, len(case.data) // FITTED_ROWS)


def robust_scale(case: Case, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return median and spread (a standard deviation, by the quartiles) of each column of `values`, as trusted.

    Without trusted episodes all count. Where the quartiles coincide, the standard deviation stands in.
    """
    rows = case.is_trusted[case.data.episode_index]
    believed = values[rows] if rows.any() else values
    low, centre, high = np.quantile(believed, (0.25, 0.5, 0.75), axis=0)
    spread = np.where(high - low > SMALLEST_SPREAD, (high - low) / 1.349, believed.std(axis=0))
    return centre, np.maximum(spread, SMALLEST_SPREAD)


def random_features(case: Case, inputs: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return a constant, the scaled inputs, their squares and random bumps of them: (N, d') float32."""
    centre, spread = robust_scale(case, inputs)
    scaled = np.clip((inputs - centre) / spread, -CLIP, CLIP).astype(np.float32)
    size = scaled.shape[1]
    directions = random.normal(0.0, 1.0 / np.sqrt(size), (size, FEATURES)).astype(np.float32)
    offsets = random.uniform(-1.5, 1.5, FEATURES).astype(np.float32)
    bumps = np.tanh(scaled @ directions + offsets)
    return np.concatenate([np.ones((len(scaled), 1), np.float32), scaled, scaled**2, bumps], axis=1)
