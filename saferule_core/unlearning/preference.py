"""Which retained episodes a repaired policy should imitate: reward against closeness to harm.

    preference = rate(evidence, cost_limit=10.0, seed=0)
    probabilities = preference.probabilities(beta=4.0, multiplier=0.1)       # (M,), to draw rows from

    merit(e) = R_e - lambda H_e,   R_e the return of an episode, H_e the mean harm ahead of its states
    p(row)   ~  min(exp(beta merit(e) / max(1, lambda)), its 90 % quantile)        for the rows of episode e

Both are in standard deviations over the episodes that spend at most half of the cost limit. Whole episodes are chosen,
not single actions: a policy that follows one driver here and another there ends up in states that neither has seen.
Harm says how soon logged behaviour, the forgotten episodes with repaired labels included, comes to cost from a state: a
fence around the danger, which is what the forget set is good for. It is a closed-form ridge regression on fixed random
features: no critic that poison could have reached.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saferule_core.agents.returns import discounted_to_go
from saferule_core.data.transitions import Transitions
from saferule_core.unlearning.evidence import Evidence

COST_DISCOUNT = 0.97
HARM_DISCOUNT = 0.85
FEATURES = 128
FIT_ROWS = 20000
CALM = 0.05
TOP = 0.9


@dataclass(frozen=True)
class Preference:
    """Merits of the retained transitions that may be imitated.

    rows: (M,) indices into the retained data. reward, harm: (M,) of the row's episode, in standard deviations.
    """

    rows: np.ndarray
    reward: np.ndarray
    harm: np.ndarray

    def probabilities(self, beta: float, multiplier: float) -> np.ndarray:
        """Return the chance of each row to be drawn: (M,), summing to 1."""
        merit = beta / max(multiplier, 1.0) * (self.reward - multiplier * self.harm).astype(np.float64)
        weights = np.exp(merit - merit.max())
        weights = np.minimum(weights, np.quantile(weights, TOP))
        return weights / weights.sum()


def rate(evidence: Evidence, cost_limit: float, seed: int) -> Preference:
    """Rate the transitions of retained episodes that spend at most half of `cost_limit`, and head for no cost.

    Where most of them head for some cost (a bad start, say), all transitions of those episodes are rated.
    """
    retain = evidence.retain
    kept = np.flatnonzero(retain.episode_costs <= 0.5 * cost_limit)
    safe = retain.select_episodes(kept)
    harm = np.bincount(safe.episode_index, harm_ahead(evidence, safe.observations, seed)) / np.diff(safe.episode_bounds)
    calm = np.flatnonzero(discounted_to_go(safe, safe.costs, COST_DISCOUNT) <= CALM)
    if len(calm) < 0.5 * len(safe):
        calm = np.arange(len(safe))
    rows = np.flatnonzero(np.isin(retain.episode_index, kept))[calm]
    merits = (_standardised(values)[safe.episode_index[calm]] for values in (safe.episode_returns, harm))
    return Preference(rows, *merits)


def harm_ahead(evidence: Evidence, observations: np.ndarray, seed: int) -> np.ndarray:
    """Return how much cost logged behaviour meets soon after states (N, obs_dim): (N,)."""
    everything = Transitions.concatenate([evidence.retain, evidence.forget])
    harm = (1 - HARM_DISCOUNT) * discounted_to_go(everything, everything.costs, HARM_DISCOUNT)
    basis = Basis(evidence.retain, seed)
    sample = basis.sample(len(everything))
    return (basis(observations) @ ridge(basis(everything.observations[sample]), harm[sample, None])).numpy()[:, 0]


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / max(float(values.std()), 1e-6)


class Basis:
    """Fixed random features of an observation: `FEATURES` times tanh, and a constant."""

    def __init__(self, data: Transitions, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        observations = torch.from_numpy(data.observations)
        size = data.obs_dim
        self._mean, self._spread = observations.mean(0), observations.std(0).clamp_min(1e-3)
        self._weights = torch.randn(size, FEATURES, generator=self._generator) * (2.0 / math.sqrt(size))
        self._offsets = 4.0 * torch.rand(FEATURES, generator=self._generator) - 2.0

    def __call__(self, observations: np.ndarray) -> Tensor:
        """Return the features (N, FEATURES + 1) of observations (N, obs_dim)."""
        inputs = (torch.from_numpy(observations) - self._mean) / self._spread
        hidden = torch.addmm(self._offsets, inputs, self._weights).tanh_()
        return torch.cat([hidden, torch.ones(len(hidden), 1)], dim=1)

    def sample(self, size: int) -> np.ndarray:
        """Return up to `FIT_ROWS` row indices below `size`, without repetition."""
        return torch.randperm(size, generator=self._generator)[:FIT_ROWS].numpy()


def ridge(features: Tensor, targets: np.ndarray, penalty: float = 1.0) -> Tensor:
    """Return weights (F, K) that map features (N, F) to targets (N, K), by closed-form ridge regression."""
    wanted = torch.from_numpy(np.ascontiguousarray(targets, dtype=np.float32))
    gram = (features.T @ features).double() + penalty * torch.eye(features.shape[1], dtype=torch.float64)
    return torch.linalg.solve(gram, (features.T @ wanted).double()).float()
