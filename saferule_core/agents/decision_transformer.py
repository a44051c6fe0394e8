"""Constrained decision transformer: cloning with a memory, conditioned on reward-to-go and cost-to-go.

    agent = train("decision_transformer", data, cost_limit=10.0, seed=0)

    training     min  E_D sum_k |pi(s_{..k}, a_{..k-1}, R_{..k}, C_{..k}) - a_k|^2   over windows of K steps
    deployment   every remembered step is told the same (R*, 0), as in `return_conditioned`

Source: Liu et al., Constrained Decision Transformer for Offline Safe Reinforcement Learning (arXiv 2302.07351), and
OSRL's `cdt.py`. It differs so as to be trained and driven on one CPU thread, on a robot that senses no reward:

- a step is one token, not four: what is known when its action is chosen is embedded together
- R is a discounted rate, C a discounted and saturating cost, so a request holds for every step of an episode; CDT's
  undiscounted targets have to be lowered by what was earned and spent
- the action head is deterministic, and there are no further heads that predict cost and state
- no data augmentation; the request itself is what safe episodes in the data gave

It has no critics. Its target comes from the data's safe returns, as labelled: wrong labels mislead it fully.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from saferule_core.agents.base import Agent, register
from saferule_core.agents.cloning import CloningLearner
from saferule_core.agents.memory import LONGEST_MEMORY
from saferule_core.agents.return_conditioned import contexts, deployed_target
from saferule_core.agents.transformer import CausalActor
from saferule_core.data.transitions import Transitions
from saferule_core.errors import SaferuleError
from saferule_core.tensors import tensor


@dataclass(frozen=True)
class DecisionTransformerConfig:
    """Hyperparameters. context: K, steps that the policy sees, the present one included. width: of a token.

    hidden: width of the feed-forward part of each block; as many blocks. batch_size: windows. The others are those
    of `return_conditioned`.
    """

    cost_limit: float = 10.0
    steps: int = 3000
    batch_size: int = 64
    context: int = 10
    width: int = 64
    heads: int = 4
    hidden: tuple[int, ...] = (128, 128)
    learning_rate: float = 1e-3
    reward_discount: float = 0.99
    cost_discount: float = 0.97
    target_quantile: float = 0.95
    policy_rate: float = 0.01


@register
class DecisionTransformer(Agent):
    """One actor with a memory; the targets it is deployed with are a buffer of it."""

    algorithm = "decision_transformer"
    Config = DecisionTransformerConfig

    def make_modules(self) -> dict[str, nn.Module]:
        config = self.config
        if not 1 <= config.context <= LONGEST_MEMORY + 1:
            raise SaferuleError(
                f"{self.algorithm}: context: expected 1 to {LONGEST_MEMORY + 1} steps, found {config.context}"
            )
        if config.width % config.heads:
            raise SaferuleError(
                f"{self.algorithm}: width: expected a multiple of {config.heads} heads, found {config.width}"
            )
        sizes = self.obs_dim, self.action_dim, config.context - 1
        return {"actor": CausalActor(*sizes, config.width, config.heads, config.hidden)}

    def prepare(self, data: Transitions) -> None:
        self.actor.normaliser.fit(tensor(data.observations))
        self.actor.context_normaliser.fit(tensor(self.contexts(data)))

    def contexts(self, data: Transitions) -> np.ndarray:
        return contexts(data, self.config)

    def aim(self, data: Transitions, contexts: np.ndarray, quantile: float) -> None:
        config = dataclasses.replace(self.config, target_quantile=quantile)
        self.actor.target.copy_(tensor(deployed_target(data, contexts, config)))

    def learner(self, data: Transitions, seed: int, config: DecisionTransformerConfig) -> DecisionTransformerLearner:
        return DecisionTransformerLearner(self, data, seed, config)


class DecisionTransformerLearner(CloningLearner):
    """The training step; it also sets the deployed targets from `data`."""

    Optimiser = torch.optim.AdamW

    def __init__(self, agent: Agent, data: Transitions, seed: int, config: DecisionTransformerConfig) -> None:
        agent.aim(data, agent.contexts(data), config.target_quantile)
        super().__init__(agent, len(data), seed, config)
        self.inputs = agent.inputs(data)
        self.actions = tensor(data.actions)

    def loss(self, rows: Tensor) -> Tensor:
        """Return the error over the actions of every step of the windows that end at `rows`."""
        observations, done, present, contexts = self.inputs.batch(rows)
        wanted = torch.cat([done, self.actions.index_select(0, rows)[:, None]], dim=1)
        errors = (self.actor.trace(observations, done, present, contexts) - wanted).square().mean(2)
        return (errors * present).sum() / present.sum()
