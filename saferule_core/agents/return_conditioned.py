"""Return- and cost-conditioned cloning: an MLP that is told what return and cost to expect, and obeys.

    agent = train("return_conditioned", data, cost_limit=10.0, seed=0)

    training     min  E_D | pi(s, R_t, C_t) - a_t |^2,   R_t reward-to-go (a rate), C_t cost-to-go of the logged episode
    deployment   pi(s, R*, 0),   R* a high quantile of R_t over episodes whose labelled cost is within the limit

The decision transformer's idea without its memory (arXiv 2106.01345; with cost, arXiv 2302.07351). It has no
critics. Its target comes from the data's safe returns, as labelled: wrong labels mislead it fully.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from saferule_core.agents.base import Agent, register
from saferule_core.agents.cloning import CloningLearner
from saferule_core.agents.networks import HIDDEN, ConditionedActor
from saferule_core.agents.returns import discounted_to_go, labelled_safe
from saferule_core.data.transitions import Transitions
from saferule_core.tensors import tensor


@dataclass(frozen=True)
class ReturnConditionedConfig:
    """Hyperparameters. `target_quantile` is taken over the rows of safe episodes, as labelled."""

    cost_limit: float = 10.0
    steps: int = 6000
    batch_size: int = 256
    learning_rate: float = 1e-3
    reward_discount: float = 0.99
    cost_discount: float = 0.97
    target_quantile: float = 0.95
    policy_rate: float = 0.01
    hidden: tuple[int, ...] = HIDDEN


@register
class ReturnConditioned(Agent):
    """One actor; the targets it is deployed with are a buffer of it."""

    algorithm = "return_conditioned"
    Config = ReturnConditionedConfig

    def make_modules(self) -> dict[str, nn.Module]:
        return {"actor": ConditionedActor(self.obs_dim, self.action_dim, self.config.hidden)}

    def prepare(self, data: Transitions) -> None:
        self.actor.normaliser.fit(tensor(data.observations))
        self.actor.context_normaliser.fit(tensor(self.contexts(data)))

    def contexts(self, data: Transitions) -> np.ndarray:
        return contexts(data, self.config)

    def aim(self, data: Transitions, contexts: np.ndarray, quantile: float) -> None:
        config = dataclasses.replace(self.config, target_quantile=quantile)
        self.actor.target.copy_(tensor(deployed_target(data, contexts, config)))

    def learner(self, data: Transitions, seed: int, config: ReturnConditionedConfig) -> ReturnConditionedLearner:
        return ReturnConditionedLearner(self, data, seed, config)


class ReturnConditionedLearner(CloningLearner):
    """The training step; it also sets the deployed targets from `data`."""

    def __init__(self, agent: Agent, data: Transitions, seed: int, config: ReturnConditionedConfig) -> None:
        context = contexts(data, config)
        agent.actor.target.copy_(tensor(deployed_target(data, context, config)))
        super().__init__(agent, len(data), seed, config)
        self.table = tensor(np.concatenate([data.observations, context, data.actions], axis=1))
        self.columns = [data.obs_dim, 2, data.action_dim]

    def loss(self, rows: Tensor) -> Tensor:
        observations, context, actions = self.table.index_select(0, rows).split(self.columns, dim=1)
        return (self.actor(observations, context) - actions).square().mean()


def contexts(data: Transitions, config: ReturnConditionedConfig) -> np.ndarray:
    """Return (reward-to-go per step, cost-to-go, saturating) for every row: (N, 2) float32."""
    rate = 1.0 - config.reward_discount
    reward = rate * discounted_to_go(data, data.rewards, config.reward_discount, tail=20)
    cost = np.log1p(discounted_to_go(data, data.costs, config.cost_discount))
    return np.stack([reward, cost], axis=1).astype(np.float32)


def deployed_target(data: Transitions, context: np.ndarray, config: ReturnConditionedConfig) -> np.ndarray:
    """Return the (reward-to-go, cost-to-go) that the deployed policy asks for: (2,) float32."""
    safe = labelled_safe(data, config.cost_limit)[data.episode_index]
    return np.array([np.quantile(context[safe, 0], config.target_quantile), 0.0], dtype=np.float32)
