"""What an episode still holds at each of its steps: discounted reward-to-go and cost-to-go.

    reward_to_go = discounted_to_go(data, data.rewards, 0.99, tail=20) * (1 - 0.99)     # a rate, per step
    cost_to_go = discounted_to_go(data, data.costs, 0.97)

Needs whole episodes in order, as `Transitions` keeps them.
"""

from __future__ import annotations

import numpy as np

from saferule_core.data.transitions import Transitions


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
