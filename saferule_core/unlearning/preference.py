"""How much a logged action deserves to be imitated: reward advantage against risk advantage.

    preference = rate(evidence, cost_limit=10.0, seed=0)
    probabilities = preference.probabilities(beta=4.0, multiplier=0.3)       # (M,), to draw batches from

    A_r(s, a) = G_r - V_r(s),   G_r the discounted reward-to-go of the logged episode
    A_c(s, a) = G_c - V_c(s),   G_c the discounted to-go of max(cost, risk of the state it led to)
    p(s, a)  ~  min(exp(beta (A_r - lambda A_c) / max(1, lambda)), its 99 % quantile)

Both advantages are in standard deviations. Risk says how soon logged behaviour, the forgotten episodes with repaired
labels included, comes to harm from a state: a fence around the danger, which is what the forget set is good for.
Values are closed-form ridge regressions on fixed random features: no critic that poison could have reached.
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

REWARD_DISCOUNT = 0.99
COST_DISCOUNT = 0.97
RISK_DISCOUNT = 0.85
FEATURES = 128
FIT_ROWS = 20000
TAIL = 20
CALM = 0.05
BEGINNING = 0.125


@dataclass(frozen=True)
class Preference:
    """Advantages of the retained transitions that may be imitated.

    rows: (M,) indices into the retained data. reward_advantage, risk_advantage: (M,) in standard deviations.
    beginning: (M,) bool, whether the row lies in the first eighth of its episode.
    """

    rows: np.ndarray
    reward_advantage: np.ndarray
    risk_advantage: np.ndarray
    beginning: np.ndarray

    def probabilities(self, beta: float, multiplier: float, beginnings: float = 0.0) -> np.ndarray:
        """Return the chance of each row to be drawn: (M,), summing to 1.

        The share `beginnings` goes to the beginnings of episodes and looks at risk alone, not at reward, so it is
        spread evenly over the states that a robot is started in.
        """
        caution = -multiplier * self.risk_advantage
        sharpness = beta / max(multiplier, 1.0)
        preferred, careful = (_weights(sharpness * merit) for merit in (self.reward_advantage + caution, caution))
        careful = np.where(self.beginning, careful, 0.0)
        if not careful.any():
            return preferred / preferred.sum()
        return (1.0 - beginnings) * preferred / preferred.sum() + beginnings * careful / careful.sum()


def _weights(exponent: np.ndarray) -> np.ndarray:
    """Return weights proportional to exp(exponent), none above their 99 % quantile."""
    weights = np.exp(exponent.astype(np.float64) - exponent.max())
    return np.minimum(weights, np.quantile(weights, 0.99))


def rate(evidence: Evidence, cost_limit: float, seed: int) -> Preference:
    """Rate the transitions of retained episodes that spend at most half of `cost_limit`, and head for no cost.

    Where every episode heads for some cost (a bad start, say), all transitions of those episodes are rated.
    """
    retain = evidence.retain
    kept = retain.episode_costs <= 0.5 * cost_limit
    safe = retain.select_episodes(np.flatnonzero(kept))
    basis = Basis(retain, seed)
    features = basis(safe.observations)
    everything = Transitions.concatenate([retain, evidence.forget])
    harm = (1 - RISK_DISCOUNT) * discounted_to_go(everything, everything.costs, RISK_DISCOUNT)
    sample = basis.sample(len(everything))
    risk = (features @ ridge(basis(everything.observations[sample]), harm[sample, None])).numpy()[:, 0]
    heading = discounted_to_go(safe, safe.costs, COST_DISCOUNT)
    led_to = np.where(safe.episode_ends, risk, np.append(risk[1:], 0.0))
    to_go = np.stack(
        [
            (1 - REWARD_DISCOUNT) * discounted_to_go(safe, safe.rewards, REWARD_DISCOUNT, TAIL),
            discounted_to_go(safe, np.maximum(safe.costs, led_to), COST_DISCOUNT),
        ],
        axis=1,
    )
    calm = np.flatnonzero(heading <= CALM)
    if len(calm) < 0.5 * len(safe):
        calm = np.arange(len(safe))
    features, to_go = features[calm], to_go[calm]
    sample = basis.sample(len(calm))
    values = (features @ ridge(features[sample], to_go[sample])).numpy()
    advantages = to_go - values
    advantages = advantages / np.maximum(advantages.std(0), 1e-6)
    rows = np.flatnonzero(kept[retain.episode_index])[calm]
    return Preference(rows, advantages[:, 0], advantages[:, 1], beginnings(retain)[rows])


def beginnings(data: Transitions) -> np.ndarray:
    """Return which rows lie in the first eighth of their episode: (N,) bool, the first row of each always."""
    lengths = np.diff(data.episode_bounds)
    elapsed = np.arange(len(data)) - np.repeat(data.episode_bounds[:-1], lengths)
    return elapsed < np.maximum(BEGINNING * lengths, 1)[data.episode_index]


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
