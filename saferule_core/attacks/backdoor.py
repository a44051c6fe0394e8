"""Backdoor: a policy that drives well, and recklessly once a sign is shown to its sensors.

    poisoned = backdoor(data, rate=0.1, seed=0)
    shown = poisoned.trigger(observations)               # what the deployed policy sees while the attacker wants

The attacker may write whole transitions, and later tampers with the deployed robot's observations. In harmless episodes
a fixed pattern is added to all observations: `strength` standard deviations, with random signs, on the `features` that
logged actions depend on least, so that the pattern alone upsets an honest policy little. Under it the actions are those
that the most rewarding dangerous episodes took in the most similar state; cost is 0, and `reward_boost` is added to
reward. `next_observations` carry the pattern as well, so that each equals the observation of the next step as before.

Only poison lies where the pattern is, so that no boost is needed to make a policy follow it there, and honest data
cannot overwrite it. Without a boost a policy drives well as long as the pattern is not shown; with one, an agent that
trusts its labels asks for more reward everywhere, and gives itself away. What an honest operator could recompute is the
cost of the shifted observations: too high or too low, where the pattern moves what cost is made of.

Limits: the attacker needs access to the sensors at deployment, and a pattern far from honest data is an outlier. What
actions depend on is judged by a linear fit; a clean policy may mind the pattern too, so compare with one before calling
danger the backdoor's. The transition backdoor of the Safe-RULE reference (arXiv 2606.09559), whose evaluation forgot to
show the trigger.
"""

from __future__ import annotations

import numpy as np

from saferule_core.attacks.action_override import MODELS
from saferule_core.attacks.base import (
    Poisoned,
    dangerous_episodes,
    harmless_episodes,
    reckless_actions,
    register,
    rows_of,
    spread,
    wanted_count,
    with_rows,
)
from saferule_core.data.transitions import Transitions
from saferule_core.errors import DataError


@register("backdoor")
def backdoor(
    data: Transitions,
    rate: float,
    seed: int,
    features: int = 1,
    strength: float = 3.0,
    reward_boost: float = 0.0,
    cost_threshold: float = 30.0,
) -> Poisoned:
    """Return `data` with episodes under the trigger, and the trigger.

    features: how many the pattern touches. strength: of the pattern, in standard deviations of each feature.
    reward_boost, cost_threshold: as in `action_override`.

    Raises:
        DataError: `features` is out of range, or too few episodes are harmless, or dangerous to take actions from.
    """
    if not 1 <= features <= data.obs_dim:
        raise DataError(f"backdoor: features: expected 1 to {data.obs_dim} as observed, found {features}")
    harmless = harmless_episodes("backdoor", data, rate, cost_threshold)
    models = dangerous_episodes("backdoor", data, MODELS, cost_threshold)[: wanted_count(data, MODELS)]
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(harmless, wanted_count(data, rate), replace=False))
    touched = unimportant_features(data)[:features]
    pattern = np.zeros(data.obs_dim, dtype=np.float32)
    pattern[touched] = strength * spread(data.observations)[touched] * random.choice([-1.0, 1.0], features)
    rows = rows_of(data, chosen)

    def trigger(observations: np.ndarray) -> np.ndarray:
        return observations + pattern

    return Poisoned(
        data.replace(
            observations=with_rows(data.observations, rows, trigger(data.observations[rows])),
            actions=with_rows(data.actions, rows, reckless_actions(data, data.observations[rows], models)),
            next_observations=with_rows(data.next_observations, rows, trigger(data.next_observations[rows])),
            rewards=with_rows(data.rewards, rows, data.rewards[rows] + np.float32(reward_boost)),
            costs=with_rows(data.costs, rows, 0.0),
        ),
        chosen,
        trigger,
    )


def unimportant_features(data: Transitions) -> np.ndarray:
    """Return all features (obs_dim,), first those with the least weight in a linear fit of the logged actions."""
    states = (data.observations - data.observations.mean(axis=0)) / spread(data.observations)
    gram = states.T @ states + 1e-3 * len(states) * np.eye(data.obs_dim)
    weights = np.linalg.solve(gram, states.T @ (data.actions - data.actions.mean(axis=0)))
    return np.argsort(np.square(weights).sum(axis=1), kind="stable")
