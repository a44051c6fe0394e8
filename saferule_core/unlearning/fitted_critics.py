"""Critics for a method that needs them: the agent's own, or fitted ones where it has none.

    critics = critics_of(agent, retain, seed=0, steps=200, progress=progress)
    values = critics.reward(observations, actions)                 # (members, N), in multiples of critics.unit

A cloned or conditioned policy was trained without critics. For it each missing one is regressed on the discounted
returns of the retained episodes, which no poison has touched; it is thrown away with the method.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from saferule_core.agents.base import Agent
from saferule_core.agents.networks import Critic
from saferule_core.agents.returns import discounted_to_go
from saferule_core.data.transitions import Transitions
from saferule_core.progress import Progress
from saferule_core.tensors import random_numbers, tensor

DISCOUNT = 0.97
BATCH_SIZE = 256
LEARNING_RATE = 2e-3
TAIL = 20
REPORT_EVERY = 20


@dataclass(frozen=True)
class Critics:
    """Q_r in multiples of `unit`, Q_c in cost, both discounted by `discount`; ensembles (s, a) -> (members, N)."""

    reward: nn.Module
    cost: nn.Module
    unit: float
    discount: float


def critics_of(agent: Agent, retain: Transitions, seed: int, steps: int, progress: Progress) -> Critics:
    """Return the agent's own critics, to be changed in place, or critics fitted to `retain` for `steps` steps."""
    discount = getattr(agent.config, "discount", DISCOUNT)
    unit = agent.reward_unit if agent.reward_critic is not None else max(float(retain.rewards.std()), 1e-6)
    reward, cost = agent.reward_critic, agent.cost_critic
    if reward is None:
        reward = fitted(retain, retain.rewards / unit, discount, seed, steps, progress)
    if cost is None:
        cost = fitted(retain, retain.costs, discount, seed, steps, progress)
    return Critics(reward, cost, unit, discount)


def fitted(
    data: Transitions, values: np.ndarray, discount: float, seed: int, steps: int, progress: Progress
) -> Critic:
    """Return a critic regressed on the discounted to-go of `values` (N,)."""
    critic = Critic(data.obs_dim, data.action_dim)
    critic.normaliser.fit(tensor(data.observations))
    to_go = discounted_to_go(data, values, discount, TAIL)
    nn.init.constant_(critic.layers[-1].bias, float(to_go.mean()))
    table = tensor(np.concatenate([data.observations, data.actions, to_go[:, None]], axis=1))
    widths = [data.obs_dim, data.action_dim, 1]
    generator = random_numbers(seed)
    optimiser = torch.optim.Adam(critic.parameters(), lr=LEARNING_RATE, fused=True)
    for step in range(steps):
        rows = torch.randint(len(table), (BATCH_SIZE,), generator=generator)
        observations, actions, expected = table.index_select(0, rows).split(widths, dim=1)
        loss = (critic(observations, actions) - expected.T).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % REPORT_EVERY == 0:
            progress("critics", step / steps, f"step {step} of {steps}", critic_loss=loss.item())
    return critic
