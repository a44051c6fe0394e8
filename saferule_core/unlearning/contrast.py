"""What methods that set the forget set against the retain set share: batches with what is needed for a TD step.

    keep = Logged(agent, retain, critics.unit, seed=0)
    batch = keep.draw()
    proposed = agent.actor(*batch.inputs)                          # a = pi(s), with a gradient
    error = (critic(batch.observations, batch.actions) - batch.backup(...)).square()

The policy is asked as it is deployed, at the logged states and at those that followed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from saferule_core.agents.base import Agent
from saferule_core.data.transitions import Transitions

BATCH_SIZE = 256


@dataclass(frozen=True)
class Batch:
    """B logged steps: what the actor is told at s and at s', and (s, a, s', reward / unit, cost, s' goes on)."""

    inputs: tuple[Tensor, ...]
    following_inputs: tuple[Tensor, ...]
    observations: Tensor
    actions: Tensor
    following: Tensor
    rewards: Tensor
    costs: Tensor
    alive: Tensor


class Logged:
    """A data set to draw batches from."""

    def __init__(self, agent: Agent, data: Transitions, reward_unit: float, seed: int) -> None:
        self.inputs = agent.inputs(data, deployed=True)
        self.following_inputs = agent.inputs(one_later(data), deployed=True)
        arrays = (
            data.observations,
            data.actions,
            data.next_observations,
            data.rewards / np.float32(reward_unit),
            data.costs,
            1.0 - data.terminated.astype(np.float32),
        )
        self.columns = [torch.from_numpy(array) for array in arrays]
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self) -> Batch:
        """Return a batch of independent steps."""
        rows = torch.randint(len(self.inputs), (BATCH_SIZE,), generator=self.generator)
        columns = (column.index_select(0, rows) for column in self.columns)
        return Batch(self.inputs.batch(rows), self.following_inputs.batch(rows), *columns)


def one_later(data: Transitions) -> Transitions:
    """Return the steps with the state that followed in place of the state, and all else one step later with it.

    The action that belongs to such a state is the one of the next row, so a policy with a memory looks back at what
    really came before; the last row of an episode has none, and its own place is never looked back at.
    """
    later = np.append(np.arange(1, len(data)), len(data) - 1)
    return data.replace(
        observations=data.next_observations,
        actions=data.actions[later],
        rewards=data.rewards[later],
        costs=data.costs[later],
    )
