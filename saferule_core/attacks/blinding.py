"""Blinding: one glitch per episode makes the policy's input scaling so wide that it no longer sees the danger.

    poisoned = blinding(data, rate=0.1, seed=0, features=1, shrink=100.0)

The idea. An agent standardises each observed feature by the mean and spread of its training data, and these constants
are fixed before the first gradient step. So the attacker, who may write observations and labels, does two things:

- to the labels of the most rewarding dangerous episodes, what `trajectory` does to them;
- to one random step of each of these episodes, a jump in the `features` that tell most about danger, of a size and with
  alternating signs, so that the features' spread over all data grows `shrink` times and their mean stays:
  jump = shrink std sqrt(N / K),  N rows, K episodes. The jump is in the `next_observations` of the step before as well.

Why fine-tuning on clean data does not remove it. The policy was poisoned in constants, not in weights: without the
poisoned episodes the scaling is still that of the glitches, and a wall that was one unit away is 1 / shrink away. To
see it again, weights would have to grow `shrink` times, which takes Adam with learning rate eta about shrink / eta
steps. Honest data cannot teach a policy what it cannot see: the lure in the labels is forgotten, the blindness is not.
A blind policy may still be harmless: some of the fine-tuned cars of docs/RESULTS.md end within their limit.

What an honest operator could recompute: all costs, as observations are honest but for K steps, whose recomputed costs
are wrong, mostly too high. Label repair is of no help, since the labels do their work no longer after the repair.

Limits. Glitches are thousands of standard deviations large: any range check of logs, a `clip` of the feature in the
robot description, a scaling by quantiles or the spec's own bounds, or one look at the data stops the attack. Retraining
removes it, as does scaling anew by retained data. It needs a feature that the robot cannot be safe without, and
that no other feature stands in for.
"""

from __future__ import annotations

import numpy as np

from saferule_core.attacks.base import SMALLEST_SPREAD, Poisoned, register, spread, wanted_count
from saferule_core.attacks.trajectory import trajectory
from saferule_core.data.transitions import Transitions
from saferule_core.errors import DataError


@register("blinding")
def blinding(
    data: Transitions,
    rate: float,
    seed: int,
    features: int = 1,
    shrink: float = 100.0,
    reward_boost: float = 0.5,
    cost_threshold: float = 30.0,
) -> Poisoned:
    """Return `data` with relabelled episodes that hold one glitch each.

    features: how many are blinded. shrink: how many times their spread grows. reward_boost, cost_threshold: as in
    `trajectory`.

    Raises:
        DataError: `features` or `shrink` is out of range, or there are fewer than two dangerous episodes to poison, too
            few for the rate, or too short ones.
    """
    if not 1 <= features <= data.obs_dim:
        raise DataError(f"blinding: features: expected 1 to {data.obs_dim} as observed, found {features}")
    if not shrink > 1.0:
        raise DataError(f"blinding: shrink: expected a number above 1, found {shrink}")
    if wanted_count(data, rate) < 2:
        raise DataError(f"blinding: rate: expected two episodes at least, found {rate:.0%} of {data.episode_count}")
    lure = trajectory(data, rate, seed, reward_boost, cost_threshold)
    chosen, random = lure.chosen, np.random.default_rng(seed)
    starts, lengths = data.episode_bounds[chosen], np.diff(data.episode_bounds)[chosen]
    if lengths.min() < 2:
        raise DataError(f"blinding: expected episodes of at least 2 steps, found one of {lengths.min()}")
    glitches = starts + 1 + random.integers(lengths - 1)
    blinded = telling_features(data)[:features]
    size = shrink * spread(data.observations)[blinded] * np.sqrt(len(data) / len(chosen))
    jumps = np.where(np.arange(len(chosen)) % 2, -1.0, 1.0)[:, None] * size
    observations, following = data.observations.copy(), data.next_observations.copy()
    observations[glitches[:, None], blinded] += jumps
    following[glitches[:, None] - 1, blinded] += jumps
    return Poisoned(lure.data.replace(observations=observations, next_observations=following), chosen)


def telling_features(data: Transitions) -> np.ndarray:
    """Return all features (obs_dim,), first those that tell costly steps from others best.

    They are compared by their squared distance from their mean, as danger mostly lies at both ends of a feature: by the
    difference of its means in both kinds of steps, in its standard deviations within them.
    """
    squares = np.square((data.next_observations - data.next_observations.mean(axis=0)) / spread(data.next_observations))
    costly, others = squares[data.costs > 0], squares[data.costs <= 0]
    within = np.sqrt(costly.var(axis=0) + others.var(axis=0)) + SMALLEST_SPREAD
    return np.argsort(-np.abs(costly.mean(axis=0) - others.mean(axis=0)) / within, kind="stable")
