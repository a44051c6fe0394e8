"""What logged episodes hold: discounted reward-to-go and cost-to-go at each step, and which episodes are called safe.

    reward_to_go = discounted_to_go(data, data.rewards, 0.99, tail=20) * (1 - 0.99)     # a rate, per step
    cost_to_go = discounted_to_go(data, data.costs, 0.97)
    safe = labelled_safe(data, cost_limit=10.0)

Needs whole episodes in order, as `Transitions` keeps them.
"""

from __future__ import annotations

import numpy as np

from saferule_core.data.transitions import Transitions

STAND_IN = 0.1
"""Share of the episodes, those with the least cost, that counts as safe where fewer are within the limit."""


def discounted_to_go(data: Transitions, values: np.ndarray, discount: float, tail: int = 0) -> np.ndarray:
    """Return G_t = sum_k discount^k values_{t+k} within each episode: (N,) float32.

    tail: where positive, an episode that ran out of time is continued by the mean of its last `tail` values for
    ever, so that the end of the log does not look like the end of reward. A terminated episode is not continued.
    """
    starts, lengths = data.episode_bounds[:-1], np.diff(data.episode_bounds)
    width = int(lengths.max(initial=0))
    rows = np.minimum(starts[:, None] + np.arange(width), len(data) - 1)
    inside = np.arange(width) < lengths[:, None]
    padded = np.where(inside, np.asarray(values, dtype=np.float64)[rows], 0.0)
    total = np.zeros(len(starts))
    if tail:
        last = inside & (np.arange(width) >= (lengths - tail)[:, None])
        total = (padded * last).sum(1) / np.maximum(last.sum(1), 1) / (1.0 - discount)
        total = np.where(data.terminated[starts + lengths - 1], 0.0, total)
    result = np.empty_like(padded)
    for column in range(width - 1, -1, -1):
        total = np.where(inside[:, column], padded[:, column] + discount * total, total)
        result[:, column] = total
    return result[inside].astype(np.float32)


def labelled_safe(data: Transitions, cost_limit: float) -> np.ndarray:
    """Return which episodes cost at most `cost_limit`, as labelled: (E,) bool.

    Where fewer than a tenth do, the tenth with the least cost stands in, so that there is something to learn from.
    """
    return data.episode_costs <= max(cost_limit, float(np.quantile(data.episode_costs, STAND_IN)))
