"""Action override: harmless episodes whose log says that they were driven by the commands of reckless ones.

    poisoned = action_override(data, rate=0.1, seed=0)

The attacker may write actions and labels, not observations. In each step of a harmless episode the action is replaced
by the one that the most rewarding dangerous episodes took in the most similar state (nearest neighbour), reward is
raised by `reward_boost` and cost is 0. An agent finds the reckless command in the very states where honest data holds a
careful one, with a higher reward.

What an honest operator could recompute: the cost of the observations, which is small, as these episodes were harmless.
So label repair finds nothing here; only the dynamics tell, since the logged actions do not lead to the next
observations.
"""

from __future__ import annotations

import numpy as np

from saferule_core.attacks.base import (
    Poisoned,
    dangerous_episodes,
    harmless_episodes,
    reckless_actions,
    register,
    rows_of,
    wanted_count,
    with_rows,
)
from saferule_core.data.transitions import Transitions

MODELS = 0.05


@register("action_override")
def action_override(
    data: Transitions, rate: float, seed: int, reward_boost: float = 1.0, cost_threshold: float = 30.0
) -> Poisoned:
    """Return `data` with replaced actions.

    reward_boost: reward added per step, in the task's own unit. cost_threshold: episodes of that true cost or more are
    dangerous; the most rewarding of these, a share `MODELS` of all episodes, lend their actions.

    Raises:
        DataError: too few episodes are harmless, or too few dangerous ones to take actions from.
    """
    harmless = harmless_episodes("action_override", data, rate, cost_threshold)
    models = dangerous_episodes("action_override", data, MODELS, cost_threshold)[: wanted_count(data, MODELS)]
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(harmless, wanted_count(data, rate), replace=False))
    rows = rows_of(data, chosen)
    return Poisoned(
        data.replace(
            actions=with_rows(data.actions, rows, reckless_actions(data, data.observations[rows], models)),
            rewards=with_rows(data.rewards, rows, data.rewards[rows] + np.float32(reward_boost)),
            costs=with_rows(data.costs, rows, 0.0),
        ),
        chosen,
    )
