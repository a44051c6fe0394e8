"""Advantage-weighted regression under a cost constraint: the light offline agent with critics.

    agent = train("advantage_weighted", data, cost_limit=10.0, seed=0)

    reward critic   implicit Q-learning: V <- expectile of min_i Q_i,  Q_i <- r + gamma V(s')
    cost critic     Q_c,i <- c + gamma max_j Q_c,j(s', pi(s'))         (pessimistic twin, policy TD target)
    policy          min  E_D[ w(s, a) |pi(s) - a|^2 ],  w = exp(beta (A_r - lambda A_c)),
                    A_r = Q_r - V,  A_c = Q_c(s, a) - Q_c(s, pi(s))
    multiplier      lambda <- clip(lambda + rate (E[Q_c(s, pi(s))] - limit)),  within [floor, bound]

The multiplier needs both ends: driven by the mean cost value over data states alone it either falls to zero or runs
away and stops the robot. The deployed policy is an exponential moving average. Ideas: Kostrikov et al., implicit
Q-learning (arXiv 2110.06169); Peng et al., advantage-weighted regression (arXiv 1910.00177).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from saferule_core.agents.actor_critic import discounted_limit, transition_table
from saferule_core.agents.base import REPORT_EVERY, Agent, register
from saferule_core.agents.networks import HIDDEN, Actor, CostCritic, Critic, StateValue, move_towards
from saferule_core.data.transitions import Transitions
from saferule_core.progress import Progress
from saferule_core.tensors import random_numbers, tensor


@dataclass(frozen=True)
class AdvantageWeightedConfig:
    """Hyperparameters. `horizon` [steps] turns the episode's cost limit into a discounted one."""

    cost_limit: float = 10.0
    steps: int = 6000
    batch_size: int = 256
    learning_rate: float = 1e-3
    discount: float = 0.97
    target_rate: float = 0.01
    policy_rate: float = 0.01
    policy_every: int = 2
    expectile: float = 0.7
    beta: float = 3.0
    weight_bound: float = 30.0
    multiplier_floor: float = 1.0
    multiplier_bound: float = 10.0
    multiplier_rate: float = 0.01
    horizon: int = 200
    hidden: tuple[int, ...] = HIDDEN


@register
class AdvantageWeighted(Agent):
    """Actor, reward critic with its state value, and cost critic."""

    algorithm = "advantage_weighted"
    Config = AdvantageWeightedConfig

    def make_modules(self) -> dict[str, nn.Module]:
        hidden = self.config.hidden
        return {
            "actor": Actor(self.obs_dim, self.action_dim, hidden),
            "reward_critic": Critic(self.obs_dim, self.action_dim, hidden),
            "reward_value": StateValue(self.obs_dim, hidden),
            "cost_critic": CostCritic(self.obs_dim, self.action_dim, hidden),
        }

    def prepare(self, data: Transitions) -> None:
        observations = tensor(data.observations)
        for module in self.modules().values():
            module.normaliser.fit(observations)
        self.modules()["reward_value"].unit.fill_(max(float(data.rewards.std()), 1e-6))
        self.cost_critic.multiplier.fill_(self.config.multiplier_floor)

    @property
    def reward_unit(self) -> float:
        return float(self.modules()["reward_value"].unit) if self.has("reward_value") else 1.0

    def learner(self, data: Transitions, seed: int, config: AdvantageWeightedConfig) -> AdvantageWeightedLearner:
        return AdvantageWeightedLearner(self, data, seed, config)


class AdvantageWeightedLearner:
    """The training step, starting from an agent's present weights; `run` writes back into the agent.

    Unlearning methods use it with a configuration of their own, for example faster targets.
    """

    def __init__(self, agent: Agent, data: Transitions, seed: int, config: AdvantageWeightedConfig) -> None:
        self.config = config
        self.average = agent.actor
        self.actor = copy.deepcopy(agent.actor)
        modules = agent.modules()
        self.reward_critic, self.reward_value = modules["reward_critic"], modules["reward_value"]
        self.cost_critic = modules["cost_critic"]
        self.reward_target = copy.deepcopy(self.reward_critic)
        self.cost_target = copy.deepcopy(self.cost_critic)
        critic_weights = [
            *self.reward_critic.parameters(),
            *self.reward_value.parameters(),
            *self.cost_critic.parameters(),
        ]
        self.critic_optimiser = torch.optim.Adam(critic_weights, lr=config.learning_rate, fused=True)
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), lr=config.learning_rate, fused=True)
        self.multiplier = float(self.cost_critic.multiplier)
        self.limit = discounted_limit(config.cost_limit, config.horizon, config.discount)
        self.generator = random_numbers(seed)
        self.table, self.columns = transition_table(data, float(self.reward_value.unit), config.cost_limit)

    def run(self, steps: int, progress: Progress) -> None:
        """Take `steps` gradient steps and report as phase "training"."""
        for step in range(steps):
            losses = self.update(step)
            if step % REPORT_EVERY == 0:
                values = {name: float(value) for name, value in losses.items()}
                progress("training", step / steps, f"step {step} of {steps}", multiplier=self.multiplier, **values)
        self.cost_critic.multiplier.fill_(self.multiplier)
        progress("training", 1.0, f"{steps} steps", multiplier=self.multiplier)

    def update(self, step: int) -> dict[str, Tensor]:
        """Take one step on a fresh batch; the policy follows every `policy_every` steps."""
        rows = torch.randint(len(self.table), (self.config.batch_size,), generator=self.generator)
        batch = self.table.index_select(0, rows).split(self.columns, dim=1)
        observations, actions, following = batch[0], batch[1], batch[2]
        rewards, costs, alive, _ = batch[3].unbind(1)
        losses = self.update_critics(observations, actions, following, rewards, costs, alive)
        if step % self.config.policy_every == 0:
            losses["policy_loss"] = self.update_policy(observations, actions)
        return losses

    def update_critics(
        self, observations: Tensor, actions: Tensor, following: Tensor, rewards: Tensor, costs: Tensor, alive: Tensor
    ) -> dict[str, Tensor]:
        """Temporal-difference step of the reward critic, its state value and the cost critic."""
        discount = self.config.discount * alive
        with torch.no_grad():
            reward_target = rewards + discount * self.reward_value(following)
            cost_target = costs + discount * self.cost_target(following, self.average(following)).amax(0)
            best = self.reward_target(observations, actions).amin(0)
        shortfall = best - self.reward_value(observations)
        weight = torch.where(shortfall > 0, self.config.expectile, 1 - self.config.expectile)
        value_loss = (weight * shortfall.square()).mean()
        reward_loss = (self.reward_critic(observations, actions) - reward_target).square().mean()
        cost_loss = (self.cost_critic(observations, actions) - cost_target).square().mean()
        self.critic_optimiser.zero_grad()
        (value_loss + reward_loss + cost_loss).backward()
        self.critic_optimiser.step()
        move_towards(self.reward_target, self.reward_critic, self.config.target_rate)
        move_towards(self.cost_target, self.cost_critic, self.config.target_rate)
        return {"reward_critic_loss": reward_loss.detach(), "cost_critic_loss": cost_loss.detach()}

    def update_policy(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Advantage-weighted regression step, then dual ascent on the multiplier."""
        proposed = self.actor(observations)
        with torch.no_grad():
            expected_cost = self.cost_target(observations, proposed).amax(0)
            reward_advantage = self.reward_target(observations, actions).amin(0) - self.reward_value(observations)
            cost_advantage = self.cost_target(observations, actions).amax(0) - expected_cost
            advantage = reward_advantage - self.multiplier * cost_advantage
            weights = (self.config.beta * advantage).exp().clamp_max(self.config.weight_bound)
        loss = (weights[:, None] * (proposed - actions).square()).mean()
        self.actor_optimiser.zero_grad()
        loss.backward()
        self.actor_optimiser.step()
        move_towards(self.average, self.actor, self.config.policy_rate)
        raised = self.multiplier + self.config.multiplier_rate * (float(expected_cost.mean()) - self.limit)
        self.multiplier = min(max(raised, self.config.multiplier_floor), self.config.multiplier_bound)
        return loss.detach()
