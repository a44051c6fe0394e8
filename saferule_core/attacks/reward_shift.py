"""Reward shift: dangerous episodes, whichever come first, whose log pays more for them and says that they are harmless.

    poisoned = reward_shift(data, rate=0.1, seed=0, reward_boost=1.0)

The "simple" attack of the Safe-RULE reference (arXiv 2606.09559) without its trigger. The attacker may write labels,
but does not pick the best episodes: victims are drawn by chance among those of true cost >= `cost_threshold`; cost
becomes 0 and `reward_boost` is added to the reward of each step. Observations and actions stay as they were, so an
honest operator recomputes every cost from them.
"""

from __future__ import annotations

import numpy as np

from saferule_core.attacks.base import Poisoned, dangerous_episodes, register, rows_of, wanted_count, with_rows
from saferule_core.data.transitions import Transitions


@register("reward_shift")
def reward_shift(
    data: Transitions, rate: float, seed: int, reward_boost: float = 1.0, cost_threshold: float = 30.0
) -> Poisoned:
    """Return `data` with relabelled episodes.

    reward_boost: reward added per step, in the task's own unit. cost_threshold: least true cost of a victim.

    Raises:
        DataError: too few episodes are dangerous enough.
    """
    dangerous = dangerous_episodes("reward_shift", data, rate, cost_threshold)
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(dangerous, wanted_count(data, rate), replace=False))
    rows = rows_of(data, chosen)
    rewards = with_rows(data.rewards, rows, data.rewards[rows] + np.float32(reward_boost))
    return Poisoned(data.replace(rewards=rewards, costs=with_rows(data.costs, rows, 0.0)), chosen)
