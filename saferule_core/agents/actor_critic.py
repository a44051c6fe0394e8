"""What actor-critic agents share: twin critics of reward and cost, and a Lagrange multiplier that is remembered.

    class Td3BcLearner(ActorCriticLearner):
        def update_policy(self, batch): ...

    reward critic   Q_r,i <- r + gamma min_j Q_r,j(s', a')
    cost critic     Q_c,i <- c + gamma max_j Q_c,j(s', a')
    multiplier      lambda <- clip(lambda + rate (E_D*[Q_c(s, pi(s))] - limit)),  within [floor, bound]

a' is what the deployed policy, an exponential moving average, does next. D* are the episodes whose labelled cost is
within the limit: from where unsafe logs already are no policy keeps it, so over all data the multiplier would do
nothing but rise. D* is also what a policy is held near to; critics learn from everything. Where hardly an episode is
labelled safe, others stand in (`labelled_safe`). The multiplier begins at its bound, for critics know of no cost at
first. Targets start as copies, so that a bundle needs none.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saferule_core.agents.base import REPORT_EVERY, Agent
from saferule_core.agents.networks import CostCritic, RewardCritic, move_towards
from saferule_core.agents.returns import labelled_safe
from saferule_core.data.transitions import Transitions
from saferule_core.progress import Progress
from saferule_core.tensors import random_numbers, tensor


@dataclass(frozen=True)
class Batch:
    """Logged steps: (s, a, s', r / unit, c, goes on), and which of them belong to D* (1 or 0)."""

    observations: Tensor
    actions: Tensor
    following: Tensor
    rewards: Tensor
    costs: Tensor
    alive: Tensor
    within_limit: Tensor

    def mean_within(self, values: Tensor) -> Tensor:
        """Return the mean of values (B,) over the steps of D*."""
        return (values * self.within_limit).sum() / self.within_limit.sum().clamp_min(1.0)


class ActorCriticAgent(Agent):
    """An agent whose critics are "reward_critic" and "cost_critic"; subclasses add the actor."""

    def critics(self) -> dict[str, nn.Module]:
        """Return fresh critics by name."""
        size = self.obs_dim, self.action_dim, self.config.hidden
        return {"reward_critic": RewardCritic(*size), "cost_critic": CostCritic(*size)}

    def prepare(self, data: Transitions) -> None:
        observations = tensor(data.observations)
        for module in self.modules().values():
            module.normaliser.fit(observations)
        self.reward_critic.unit.fill_(max(float(data.rewards.std()), 1e-6))
        self.cost_critic.multiplier.fill_(self.config.multiplier_bound)

    @property
    def reward_unit(self) -> float:
        return float(self.reward_critic.unit) if self.has("reward_critic") else 1.0


class ActorCriticLearner:
    """The training step, starting from an agent's present weights; `run` writes back into the agent.

    Subclasses implement `update_policy`, and may choose other next actions in `following_actions`.
    """

    def __init__(self, agent: Agent, data: Transitions, seed: int, config: Any) -> None:
        self.config = config
        self.average = agent.actor
        self.actor = copy.deepcopy(agent.actor)
        self.reward_critic, self.cost_critic = agent.reward_critic, agent.cost_critic
        self.reward_target = copy.deepcopy(self.reward_critic)
        self.cost_target = copy.deepcopy(self.cost_critic)
        weights = [*self.reward_critic.parameters(), *self.cost_critic.parameters()]
        self.critic_optimiser = torch.optim.Adam(weights, lr=config.learning_rate, fused=True)
        self.multiplier = float(self.cost_critic.multiplier)
        self.limit = discounted_limit(config.cost_limit, config.horizon, config.discount)
        self.generator = random_numbers(seed)
        self.table, self.columns = transition_table(data, agent.reward_unit, config.cost_limit)

    def run(self, steps: int, progress: Progress) -> None:
        """Take `steps` gradient steps and report as phase "training"."""
        for step in range(steps):
            batch = self.draw()
            losses = self.update_critics(batch)
            if step % self.config.policy_every == 0:
                losses.update(self.update_policy(batch))
                move_towards(self.average, self.actor, self.config.policy_rate)
            if step % REPORT_EVERY == 0:
                values = {name: float(value) for name, value in losses.items()}
                progress("training", step / steps, f"step {step} of {steps}", multiplier=self.multiplier, **values)
        self.cost_critic.multiplier.fill_(self.multiplier)
        progress("training", 1.0, f"{steps} steps", multiplier=self.multiplier)

    def draw(self) -> Batch:
        """Return a fresh batch."""
        rows = torch.randint(len(self.table), (self.config.batch_size,), generator=self.generator)
        observations, actions, following, scalars = self.table.index_select(0, rows).split(self.columns, dim=1)
        return Batch(observations, actions, following, *scalars.unbind(1))

    def following_actions(self, batch: Batch) -> Tensor:
        """Return a' at s'."""
        return self.average(batch.following)

    def update_critics(self, batch: Batch) -> dict[str, Tensor]:
        """Take a temporal-difference step of both critics."""
        discount = self.config.discount * batch.alive
        with torch.no_grad():
            ahead = self.following_actions(batch)
            reward_wanted = batch.rewards + discount * self.reward_target(batch.following, ahead).amin(0)
            cost_wanted = batch.costs + discount * self.cost_target(batch.following, ahead).amax(0)
        reward_loss = (self.reward_critic(batch.observations, batch.actions) - reward_wanted).square().mean()
        cost_loss = (self.cost_critic(batch.observations, batch.actions) - cost_wanted).square().mean()
        self.critic_optimiser.zero_grad()
        (reward_loss + cost_loss).backward()
        self.critic_optimiser.step()
        move_towards(self.reward_target, self.reward_critic, self.config.target_rate)
        move_towards(self.cost_target, self.cost_critic, self.config.target_rate)
        return {"reward_critic_loss": reward_loss.detach(), "cost_critic_loss": cost_loss.detach()}

    def update_policy(self, batch: Batch) -> dict[str, Tensor]:
        """Take a policy step and move the multiplier; return what is worth logging."""
        raise NotImplementedError

    def merit(self, batch: Batch, proposed: Tensor) -> Tensor:
        """Return Q_r(s, a) - lambda Q_c(s, a) of proposed actions, in its own standard deviations; moves lambda too."""
        cost = self.cost_critic(batch.observations, proposed).amax(0)
        merit = self.reward_critic(batch.observations, proposed).amin(0) - self.multiplier * cost
        self.raise_multiplier(float(batch.mean_within(cost.detach())))
        return merit / merit.detach().std().clamp_min(1e-6)

    def raise_multiplier(self, expected_cost: float) -> None:
        """Take a step of dual ascent."""
        raised = self.multiplier + self.config.multiplier_rate * (expected_cost - self.limit)
        self.multiplier = min(max(raised, self.config.multiplier_floor), self.config.multiplier_bound)


def discounted_limit(cost_limit: float, horizon: int, discount: float) -> float:
    """Return the discounted cost of a policy that spends `cost_limit` evenly over `horizon` steps."""
    return cost_limit / horizon * (1.0 - discount**horizon) / (1.0 - discount)


def transition_table(data: Transitions, reward_unit: float, cost_limit: float) -> tuple[Tensor, list[int]]:
    """Return all transitions in one matrix, so that a batch is one `index_select`, and its column widths.

    Columns: observation, action, next observation, (reward / reward_unit, cost, 1 - terminated, whether in D*).
    """
    within_limit = labelled_safe(data, cost_limit)[data.episode_index]
    scalars = np.stack([data.rewards / reward_unit, data.costs, 1.0 - data.terminated, within_limit], axis=1)
    parts = [data.observations, data.actions, data.next_observations, scalars.astype(np.float32)]
    return tensor(np.concatenate(parts, axis=1)), [data.obs_dim, data.action_dim, data.obs_dim, 4]
