"""What enters the last layer of a network at each logged step, and the gradient of a loss at what leaves it.

    policy = policy_layer(agent, data)            # of |pi(s) - a|^2
    cost = cost_layer(agent, data)                # of (Q_c(s, a) - logged cost-to-go)^2
    policy.activations, policy.errors             # (N, H), (N, out): a step's gradient is their outer product

The last layer stands for the whole network, as usual for influence estimates: its gradient is cheap, and most of a
label's effect passes through it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from saferule_core import agents
from saferule_core.agents.base import Agent, seeded
from saferule_core.agents.networks import EnsembleLinear
from saferule_core.agents.returns import discounted_to_go
from saferule_core.data.transitions import Transitions
from saferule_core.detection.base import Case

ROWS = 8192
TAIL = 20
HIDDEN = (64, 64)
STEPS, BATCH_SIZE, LEARNING_RATE = 250, 512, 3e-3


@dataclass(frozen=True, eq=False)
class LastLayer:
    """activations: (N, H); errors: dL/d(output) (N, out)."""

    activations: np.ndarray
    errors: np.ndarray

    def episode_gradients(self, data: Transitions) -> np.ndarray:
        """Return the mean gradient of the last layer's weights over each episode: (E, H * out)."""
        means = [self.activations[part].T @ self.errors[part] / (part.stop - part.start) for part in data.episodes()]
        return np.stack([mean.ravel() for mean in means])


def agent_of(case: Case) -> Agent:
    """Return the case's agent, or a stand-in: all actions cloned, all logged cost-to-go regressed, trusted or not."""
    if case.agent is not None:
        return case.agent
    with seeded(case.seed):
        return _stand_in(case.data)


def _stand_in(data: Transitions) -> Agent:
    agent = agents.build("advantage_weighted", data.obs_dim, data.action_dim, {"hidden": HIDDEN})
    agent.prepare(data)
    agent.drop("reward_critic", "reward_value")
    observations, actions = torch.from_numpy(data.observations), torch.from_numpy(data.actions)
    to_go = torch.from_numpy(discounted_to_go(data, data.costs, agent.config.discount, TAIL))
    unit = to_go.std() + 1.0
    weights = [*agent.actor.parameters(), *agent.cost_critic.parameters()]
    optimiser = torch.optim.Adam(weights, lr=LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(data), (BATCH_SIZE,))
        states, taken = observations.index_select(0, rows), actions.index_select(0, rows)
        cost_loss = ((agent.cost_critic(states, taken) - to_go.index_select(0, rows)) / unit).square().mean()
        loss = (agent.actor(states) - taken).square().mean() + cost_loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return agent


def policy_layer(agent: Agent, data: Transitions) -> LastLayer:
    """Return the last layer of the policy under the imitation loss |pi(s) - a|^2."""
    inputs, actions = agent.inputs(data), torch.from_numpy(data.actions)

    def loss(rows: Tensor) -> Tensor:
        return (agent.actor(*inputs.batch(rows)) - actions[rows]).square().sum()

    return _last_layer(agent.actor, loss, len(data))


def cost_layer(agent: Agent, data: Transitions) -> LastLayer | None:
    """Return the last layer of the cost critic under regression to the logged cost-to-go; None without a critic."""
    critic = agent.cost_critic
    if critic is None:
        return None
    to_go = torch.from_numpy(discounted_to_go(data, data.costs, agent.config.discount, TAIL))
    observations, actions = torch.from_numpy(data.observations), torch.from_numpy(data.actions)

    def loss(rows: Tensor) -> Tensor:
        return (critic(observations[rows], actions[rows]) - to_go[rows]).square().sum()

    return _last_layer(critic, loss, len(data))


def _last_layer(network: nn.Module, loss: Callable[[Tensor], Tensor], size: int) -> LastLayer:
    """Watch the last linear layer of `network` while `loss` is computed; members of ensembles are laid side by side."""
    layer = [module for module in network.modules() if isinstance(module, (nn.Linear, EnsembleLinear))][-1]
    seen: list[tuple[Tensor, Tensor]] = []
    hook = layer.register_forward_hook(lambda _module, given, out: seen.append((given[0], out)))
    parts: list[tuple[Tensor, Tensor]] = []
    try:
        for rows in torch.arange(size).split(ROWS):
            total = loss(rows)
            entering, leaving = seen.pop()
            (error,) = torch.autograd.grad(total, leaving)
            parts.append((_by_row(entering.detach(), len(rows)), _by_row(error, len(rows))))
    finally:
        hook.remove()
    activations, errors = (torch.cat(columns).numpy() for columns in zip(*parts, strict=True))
    return LastLayer(activations, errors)


def _by_row(values: Tensor, rows: int) -> Tensor:
    """Return (rows, k) from (rows, k) or (members, rows, k)."""
    return values if values.ndim == 2 else values.transpose(0, 1).reshape(rows, -1)
