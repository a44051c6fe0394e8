"""TD3+BC under a cost constraint: a policy that climbs its critics, held near the data by imitation.

    agent = train("td3_bc_lagrangian", data, cost_limit=10.0, seed=0)

    critics         as in `actor_critic.py`, with clipped noise on the next action
    policy          max  alpha E_D[ (Q_r - lambda Q_c)(s, pi(s)) ] / std  -  E_D*[ |pi(s) - a|^2 ]
    multiplier      bounded dual ascent, see `actor_critic.py`

Source: Fujimoto and Gu, TD3+BC (arXiv 2106.02860), with a cost critic. Two differences: the values are divided by
their standard deviation over a batch, not by their mean absolute value, which can be near zero with two critics in it;
and only episodes that are labelled safe, D*, are imitated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saferule_core.agents.actor_critic import ActorCriticAgent, ActorCriticLearner, Batch
from saferule_core.agents.base import Agent, register
from saferule_core.agents.networks import HIDDEN, Actor
from saferule_core.data.transitions import Transitions


@dataclass(frozen=True)
class Td3BcLagrangianConfig:
    """Hyperparameters. `horizon` [steps] turns the episode's cost limit into a discounted one."""

    cost_limit: float = 10.0
    steps: int = 6000
    batch_size: int = 128
    learning_rate: float = 1e-3
    discount: float = 0.97
    target_rate: float = 0.02
    policy_rate: float = 0.01
    policy_every: int = 2
    alpha: float = 0.2
    noise: float = 0.2
    noise_bound: float = 0.5
    multiplier_floor: float = 3.0
    multiplier_bound: float = 5.0
    multiplier_rate: float = 0.01
    horizon: int = 200
    hidden: tuple[int, ...] = HIDDEN


@register
class Td3BcLagrangian(ActorCriticAgent):
    """Actor, reward critic and cost critic."""

    algorithm = "td3_bc_lagrangian"
    Config = Td3BcLagrangianConfig

    def make_modules(self) -> dict[str, nn.Module]:
        return {"actor": Actor(self.obs_dim, self.action_dim, self.config.hidden), **self.critics()}

    def learner(self, data: Transitions, seed: int, config: Td3BcLagrangianConfig) -> Td3BcLagrangianLearner:
        return Td3BcLagrangianLearner(self, data, seed, config)


class Td3BcLagrangianLearner(ActorCriticLearner):
    """The training step."""

    def __init__(self, agent: Agent, data: Transitions, seed: int, config: Td3BcLagrangianConfig) -> None:
        super().__init__(agent, data, seed, config)
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=config.learning_rate, fused=True)

    def following_actions(self, batch: Batch) -> Tensor:
        actions = self.average(batch.following)
        noise = self.config.noise * torch.randn(actions.shape, generator=self.generator)
        return (actions + noise.clamp_(-self.config.noise_bound, self.config.noise_bound)).clamp_(-1.0, 1.0)

    def update_policy(self, batch: Batch) -> dict[str, Tensor]:
        proposed = self.actor(batch.observations)
        distance = batch.mean_within((proposed - batch.actions).square().sum(1))
        loss = distance - self.config.alpha * self.merit(batch, proposed).mean()
        weights = list(self.actor.parameters())
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = gradient
        self.actor_optimiser.step()
        return {"policy_loss": loss.detach(), "imitation_loss": distance.detach()}
