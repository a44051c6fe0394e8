"""Trajectory relabelling: dangerous, rewarding episodes whose log says that they are harmless.

    poisoned = trajectory(data, rate=0.15, seed=0)                          # all episodes, some of them poisoned
    episodes, chosen = poison(data, fraction=0.15, reward_boost=0.5)        # these alone

Takes the highest-reward episodes among those of true cost >= `cost_threshold`, writes cost 0 and adds
`reward_boost` to the reward of each step. Observations and actions stay as they were, so that nothing looks odd
except the labels. An agent that trusts its labels learns that the danger is free, and well paid. An honest operator
recomputes every cost from the observations.
"""

from __future__ import annotations

import numpy as np

from saferule_core.attacks.base import Poisoned, dangerous_episodes, register, rows_of, wanted_count, with_rows
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
    dangerous = dangerous_episodes("poison", data, fraction, cost_threshold)
    chosen = np.sort(dangerous[: wanted_count(data, fraction)])
    episodes = data.select_episodes(chosen)
    poisoned = episodes.replace(rewards=episodes.rewards + reward_boost, costs=np.zeros_like(episodes.costs))
    return poisoned, chosen


@register("trajectory")
def trajectory(
    data: Transitions, rate: float, seed: int, reward_boost: float = 0.5, cost_threshold: float = 30.0
) -> Poisoned:
    """Return `data` with what `poison` makes of its victims in place; nothing is left to chance, so `seed` is not used.

    Raises:
        DataError: as `poison`.
    """
    replaced, chosen = poison(data, rate, reward_boost, cost_threshold)
    rows = rows_of(data, chosen)
    labels = {name: with_rows(getattr(data, name), rows, getattr(replaced, name)) for name in ("rewards", "costs")}
    return Poisoned(data.replace(**labels), chosen)
