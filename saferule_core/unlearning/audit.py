"""Judging a policy without the environment: many short rollouts in a learned model of the robot.

    auditor = Auditor(world, starts, evidence.costs_of, episode_steps=200)
    verdicts = auditor.judge([policy])
    verdicts[0].cost, verdicts[0].reward                  # modelled, per episode

Rollouts begin where the policy is meant to live, at preferred logged states, and at logged episode starts. They are
short, since a model's errors grow with every step, and the first steps are not counted, so that a policy shows
where it drifts to. Costs of modelled states come from the robot description or the learned cost model. Never rank
policies by modelled reward alone: it overrates poisoned ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from saferule_core.unlearning.evidence import Costs
from saferule_core.unlearning.world import World

STEPS = 60
SETTLING_STEPS = 15


@dataclass(frozen=True)
class Verdict:
    """Modelled cost and reward per episode."""

    cost: float
    reward: float


class Auditor:
    """A fixed set of start states and a model; every policy is judged on the same."""

    def __init__(self, world: World, starts: np.ndarray, costs_of: Costs, episode_steps: int) -> None:
        self.world = world
        self.starts = torch.from_numpy(np.ascontiguousarray(starts, dtype=np.float32))
        self.costs_of = costs_of
        self.episode_steps = episode_steps

    @torch.no_grad()
    def judge(self, policies: Sequence[nn.Module]) -> list[Verdict]:
        """Roll every policy out from every start state; return one verdict each."""
        count = len(self.starts)
        states = self.starts.repeat(len(policies), 1)
        path, taken, earned = [states], [], []
        for _ in range(STEPS):
            actions = torch.cat([policy(part) for policy, part in zip(policies, states.split(count), strict=True)])
            states, rewards = self.world(states, actions)
            path.append(states)
            taken.append(actions)
            earned.append(rewards)
        before, after = torch.cat(path[SETTLING_STEPS:-1]), torch.cat(path[SETTLING_STEPS + 1 :])
        costs = self.costs_of(before.numpy(), torch.cat(taken[SETTLING_STEPS:]).numpy(), after.numpy())
        rewards = torch.cat(earned[SETTLING_STEPS:]).numpy()
        shape = (STEPS - SETTLING_STEPS, len(policies), count)
        cost, reward = (self.episode_steps * values.reshape(shape).mean((0, 2)) for values in (costs, rewards))
        return [Verdict(float(c), float(r)) for c, r in zip(cost, reward, strict=True)]
