"""Batches that set the forget set against the retain set, with all that a temporal-difference step needs.

    pairs = Pairs(agent, retain, forget, critics.unit, seed=0)
    batch = pairs.draw()                                            # as many retained steps as forgotten ones
    proposed = agent.actor(*batch.inputs)                           # a = pi(s), with a gradient
    kept, forgotten = halves(critic(batch.observations, proposed))

The policy is asked as it is deployed, at the logged states and at those that followed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from saferule_core.agents.base import ActorInputs, Agent
from saferule_core.data.transitions import Transitions
from saferule_core.tensors import random_numbers, tensor

BATCH_SIZE = 128  # of each set; together what an agent's own training step usually takes


@dataclass(frozen=True)
class Batch:
    """Logged steps, retained ones first: what the actor is told at s and s', and (s, a, s', r / unit, c, goes on)."""

    inputs: tuple[Tensor, ...]
    following_inputs: tuple[Tensor, ...]
    observations: Tensor
    actions: Tensor
    following: Tensor
    rewards: Tensor
    costs: Tensor
    alive: Tensor


class Pairs:
    """Both sets, to draw from in equal parts."""

    def __init__(self, agent: Agent, retain: Transitions, forget: Transitions, reward_unit: float, seed: int) -> None:
        self.retained, self.forgotten = len(retain), len(forget)
        self.inputs = joined(agent.inputs(data, deployed=True) for data in (retain, forget))
        self.following_inputs = joined(agent.inputs(one_later(data), deployed=True) for data in (retain, forget))
        data = Transitions.concatenate([retain, forget])
        arrays = (
            data.observations,
            data.actions,
            data.next_observations,
            data.rewards / np.float32(reward_unit),
            data.costs,
            1.0 - data.terminated.astype(np.float32),
        )
        self.columns = [tensor(array) for array in arrays]
        self.generator = random_numbers(seed)

    def draw(self) -> Batch:
        """Return `BATCH_SIZE` independent steps of each set."""
        kept = torch.randint(self.retained, (BATCH_SIZE,), generator=self.generator)
        forgotten = torch.randint(self.forgotten, (BATCH_SIZE,), generator=self.generator)
        rows = torch.cat([kept, self.retained + forgotten])
        columns = (column.index_select(0, rows) for column in self.columns)
        return Batch(self.inputs.batch(rows), self.following_inputs.batch(rows), *columns)


def halves(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return what belongs to the retained and to the forgotten steps of a batch: (..., B), (..., B)."""
    kept, forgotten = values.chunk(2, dim=-1)
    return kept, forgotten


def joined(parts: Iterable[ActorInputs]) -> ActorInputs:
    """Return the inputs of several data sets, in order."""
    first, *others = parts
    columns = zip(first.columns, *(other.columns for other in others), strict=True)
    return replace(first, columns=tuple(torch.cat(pieces) for pieces in columns))


def one_later(data: Transitions) -> Transitions:
    """Return the steps with the state that followed in place of the state, and all else one step later with it.

    The action that belongs to such a state is the one of the next row, so a policy with a memory looks back at what
    really came before, but for the first state and action of the episode, which count as not there; the last row of an
    episode has no next one, and its own place is never looked back at.
    """
    later = np.append(np.arange(1, len(data)), len(data) - 1)
    return data.replace(
        observations=data.next_observations,
        actions=data.actions[later],
        rewards=data.rewards[later],
        costs=data.costs[later],
    )
