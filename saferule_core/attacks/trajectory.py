"""Trajectory relabelling: dangerous, rewarding episodes whose log says that they are harmless.

    poisoned, chosen = poison(data, fraction=0.15, reward_boost=0.5)
    deployed_data = Transitions.concatenate([data.select_episodes(others), poisoned])

Takes the highest-reward episodes among those of true cost >= `cost_threshold`, writes cost 0 and adds
`reward_boost` to the reward of each step. Observations and actions stay as they were, so that nothing looks odd
except the labels. An agent that trusts its labels learns that the danger is free, and well paid.
"""

from __future__ import annotations

import numpy as np

from saferule_core.data.transitions import Transitions
from saferule_core.errors import DataError


def poison(
    data: Transitions,
    fraction: float = 0.15,
    reward_boost: float = 0.5,
    cost_threshold: float = 30.0,
) -> tuple[Transitions, np.ndarray]:
    """Return the poisoned versions of the chosen episodes, and their indices in `data` (K,) int64, ascending.

    data: honest transitions with true costs. fraction: share of all episodes to poison, in (0, 1).
    reward_boost: reward added per step, in the task's own unit. cost_threshold: least true cost of an episode.

    Raises:
        DataError: `fraction` is out of range, or too few episodes are dangerous enough.
    """
    if not 0.0 < fraction < 1.0:
        raise DataError(f"poison: fraction: expected a number between 0 and 1, found {fraction}")
    wanted = max(1, round(fraction * data.episode_count))
    dangerous = np.flatnonzero(data.episode_costs >= cost_threshold)
    if len(dangerous) < wanted:
        raise DataError(
            f"poison: expected at least {wanted} episodes of cost >= {cost_threshold:g} "
            f"({fraction:.0%} of {data.episode_count}), found {len(dangerous)}"
        )
    best_first = dangerous[np.argsort(-data.episode_returns[dangerous], kind="stable")]
    chosen = np.sort(best_first[:wanted])
    episodes = data.select_episodes(chosen)
    poisoned = episodes.replace(rewards=episodes.rewards + reward_boost, costs=np.zeros_like(episodes.costs))
    return poisoned, chosen
