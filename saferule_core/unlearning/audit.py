"""Judging a policy without the environment: many short rollouts in a learned model of the robot.

    auditor = Auditor(world, retain, rows, evidence.costs_of)
    verdicts = auditor.judge([policy])
    verdicts[0].cost, verdicts[0].reward                  # modelled, per episode

Rollouts begin where the policy is meant to live, at preferred logged states, and at logged episode starts; a policy
with a memory is told what was logged before. They are short, since a model's errors grow with every step, and the first
steps are not counted, so that a policy shows where it drifts to. Costs of modelled states come from the robot
description or the learned cost model. Never rank policies by modelled reward alone: it overrates poisoned ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from saferule_core.agents.memory import Driver, Memory, memory_of
from saferule_core.data.transitions import Transitions
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
    """A fixed set of start states, rows of `retain`, and a model; every policy is judged on the same."""

    def __init__(self, world: World, retain: Transitions, rows: np.ndarray, costs_of: Costs) -> None:
        self.world, self.retain, self.rows = world, retain, rows
        self.starts = torch.from_numpy(retain.observations[rows])
        self.costs_of = costs_of
        self.episode_steps = int(np.diff(retain.episode_bounds).max())

    @torch.no_grad()
    def judge(self, policies: Sequence[nn.Module]) -> list[Verdict]:
        """Roll every policy out from every start state; return one verdict each."""
        count = len(self.starts)
        states = self.starts.repeat(len(policies), 1)
        drivers = [Driver(policy, Memory.logged(self.retain, self.rows, memory_of(policy))) for policy in policies]
        path, taken, earned = [states], [], []
        for _ in range(STEPS):
            parts = zip(drivers, states.numpy().reshape(len(policies), count, -1), strict=True)
            actions = torch.from_numpy(np.concatenate([driver.act(part) for driver, part in parts]))
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
