"""How much a logged action deserves to be imitated: reward advantage against cost-to-go.

    preference = Preference.of(evidence.retain, cost_limit=10.0)
    probabilities = preference.probabilities(beta=4.0, multiplier=20.0)      # (N,), to draw batches from

    A_r(s, a) = (G_r - V(s)) / std,   G_r the discounted reward-to-go of the logged episode, V by ridge regression
    C(s, a)   = G_c,                  the discounted cost-to-go with repaired costs
    p(s, a)  ~ min(exp(beta (A_r - lambda C)), its 99 % quantile)

Monte-Carlo returns of whole episodes need no critic that poison could have reached.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saferule_core.agents.returns import discounted_to_go
from saferule_core.data.transitions import Transitions

REWARD_DISCOUNT = 0.99
COST_DISCOUNT = 0.97
FEATURES = 128
TAIL = 20


@dataclass(frozen=True)
class Preference:
    """Reward advantage and cost-to-go of every retained transition that may be imitated.

    rows: (M,) indices into the retained data. advantages: (M,) in standard deviations. cost_to_go: (M,).
    """

    rows: np.ndarray
    advantages: np.ndarray
    cost_to_go: np.ndarray

    @staticmethod
    def of(retain: Transitions, cost_limit: float, seed: int) -> Preference:
        """Rate the transitions of episodes that spend at most half of `cost_limit`."""
        kept = np.flatnonzero(retain.episode_costs <= 0.5 * cost_limit)
        bounds = retain.episode_bounds
        rows = np.concatenate([np.arange(bounds[i], bounds[i + 1]) for i in kept]) if len(kept) else np.zeros(0, int)
        safe = retain.select_episodes(kept)
        reward_to_go = (1 - REWARD_DISCOUNT) * discounted_to_go(safe, safe.rewards, REWARD_DISCOUNT, TAIL)
        values = ridge_values(safe.observations, reward_to_go, seed)
        advantages = reward_to_go - values
        advantages = advantages / max(float(advantages.std()), 1e-6)
        return Preference(rows, advantages, discounted_to_go(safe, safe.costs, COST_DISCOUNT))

    def probabilities(self, beta: float, multiplier: float) -> np.ndarray:
        """Return the chance of each row to be drawn: (M,), summing to 1."""
        exponent = beta * (self.advantages - multiplier * self.cost_to_go)
        weights = np.exp(exponent - exponent.max())
        weights = np.minimum(weights, np.quantile(weights, 0.99))
        return weights / weights.sum()


def ridge_values(observations: np.ndarray, returns: np.ndarray, seed: int, penalty: float = 1.0) -> np.ndarray:
    """Return V(s) (N,) by closed-form ridge regression on `FEATURES` fixed tanh features of the observation."""
    generator = np.random.default_rng(seed)
    spread = np.maximum(observations.std(0), 1e-3)
    inputs = (observations - observations.mean(0)) / spread
    weights = generator.normal(size=(inputs.shape[1], FEATURES)) / np.sqrt(inputs.shape[1])
    offsets = generator.uniform(-2, 2, FEATURES)
    features = np.tanh(inputs @ (2 * weights).astype(np.float32) + offsets.astype(np.float32))
    features = np.concatenate([features, np.ones((len(features), 1), np.float32)], axis=1)
    gram = features.T @ features + penalty * np.eye(FEATURES + 1, dtype=np.float32)
    return features @ np.linalg.solve(gram.astype(np.float64), features.T @ returns).astype(np.float32)
