"""Observation PGD: observations pushed, within a bound, to where danger seems greatest, and logged as harmless.

    poisoned = observation_pgd(data, rate=0.1, seed=0, epsilon=0.5)

    max_d  Q_c(s + d, a)   subject to |d_i| <= epsilon std_i,      d <- clip(d + step std sign(grad_d Q_c))

"Max-cost" of the Safe-RULE reference (arXiv 2606.09559), which runs it against a surrogate that it never trains, so
that its perturbation is noise. Here the surrogate cost critic Q_c is first regressed on the discounted true costs of
the data. The attacker may write observations and labels, not actions. What is attacked is the link between a state and
its cost: where a cost critic, or a cost model of a label repair, is to see danger, it finds the label 0.

`next_observations` of a step get the perturbation of the following step's observation, so each pair stays as consistent
as it was; the last one of an episode gets one of its own, against the last action. What an honest operator could
recompute is the cost of the perturbed observations: mostly too high, so recomputation exaggerates the danger here and
hides none.

A negative result: on a conditioned agent the zeroed costs do the harm, and do more of it without the perturbation, which
moves the poison away from where the robot drives (docs/ATTACKS.md).
"""

from __future__ import annotations

import numpy as np
import torch

from saferule_core.agents.base import seeded
from saferule_core.attacks.base import (
    Poisoned,
    dangerous_episodes,
    register,
    rows_of,
    spread,
    wanted_count,
    with_rows,
)
from saferule_core.data.transitions import Transitions
from saferule_core.errors import DataError
from saferule_core.progress import silent
from saferule_core.unlearning.fitted_critics import DISCOUNT, fitted

ITERATIONS = 10
CRITIC_STEPS = 1000


@register("observation_pgd")
def observation_pgd(
    data: Transitions,
    rate: float,
    seed: int,
    epsilon: float = 0.5,
    reward_boost: float = 0.0,
    cost_threshold: float = 0.0,
    critic_steps: int = CRITIC_STEPS,
) -> Poisoned:
    """Return `data` with perturbed observations.

    epsilon: bound per feature, in its standard deviations. reward_boost: reward added per step, in the task's own unit.
    cost_threshold: least true cost of a victim, victims are drawn by chance. critic_steps: of the surrogate's training.

    Raises:
        DataError: `epsilon` is not positive, too few episodes are dangerous enough, or no step has a cost.
    """
    if not epsilon > 0.0:
        raise DataError(f"observation_pgd: epsilon: expected a positive number, found {epsilon}")
    if not data.costs.any():
        raise DataError("observation_pgd: costs: expected some to train the surrogate cost critic on, found none")
    victims = np.sort(dangerous_episodes("observation_pgd", data, rate, cost_threshold))
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(victims, wanted_count(data, rate), replace=False))
    rows = rows_of(data, chosen)
    with seeded(seed):
        critic = fitted(data, data.costs, DISCOUNT, seed, critic_steps, silent)
    bound = epsilon * spread(data.observations)
    observations, actions, ends = data.observations[rows], data.actions[rows], data.episode_ends[rows]
    shift = perturbation(critic, observations, actions, bound)
    last = data.next_observations[rows][ends]
    following = np.empty_like(shift)
    following[:-1] = shift[1:]
    following[ends] = perturbation(critic, last, actions[ends], bound)
    return Poisoned(
        data.replace(
            observations=with_rows(data.observations, rows, observations + shift),
            next_observations=with_rows(data.next_observations, rows, data.next_observations[rows] + following),
            rewards=with_rows(data.rewards, rows, data.rewards[rows] + np.float32(reward_boost)),
            costs=with_rows(data.costs, rows, 0.0),
        ),
        chosen,
    )


def perturbation(
    critic: torch.nn.Module, observations: np.ndarray, actions: np.ndarray, bound: np.ndarray
) -> np.ndarray:
    """Return d (N, obs_dim) float32 with |d_i| <= bound_i that raises critic(s + d, a), by projected ascent."""
    states, commands, limit = (torch.from_numpy(np.float32(each)) for each in (observations, actions, bound))
    shift = torch.zeros_like(states)
    for _ in range(ITERATIONS):
        shift.requires_grad_(True)
        (gradient,) = torch.autograd.grad(critic(states + shift, commands).mean(0).sum(), shift)
        step = 2.5 / ITERATIONS * limit * gradient.sign()
        shift = torch.maximum(torch.minimum(shift.detach() + step, limit), -limit)
    return shift.numpy()
